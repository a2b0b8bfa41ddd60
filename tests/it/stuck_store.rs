//! A server whose store does not return.

use long_polling::{ErrorKind, Server};

use crate::store_probe::{Probe, SOON, StoreCall, in_time};
use crate::support::{Connection, info, until};

#[test]
fn a_server_whose_store_does_not_return_is_stopped_and_dropped_in_time() {
    let store = Probe::new(|_| {});
    let server = Server::start(info().store(store.clone())).unwrap();
    store
        .state()
        .blocks_in
        .extend([StoreCall::Append, StoreCall::Stop]);
    let mut connection = Connection::to(&server);
    connection.publish(r#"{"category":"c","data":1}"#);
    until("blocked", || store.state().blocked == 1);
    in_time(move || {
        let error = server.stop(SOON).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StopTimeout);
        drop(server);
    });
    store.release();
}
