//! [`Format`]: which form of the metrics a request prefers (RFC 9110, section 12.5.1).

use crate::server::accept::Quality;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

impl Format {
    /// The form that these `Accept` fields prefer. The text where both are preferred equally, where there is no such field,
    /// and where neither form is acceptable: a scraper that asks for a form that we do not have is served all the same, as
    /// RFC 9110 allows.
    pub(super) fn accepted<'a>(fields: impl Iterator<Item = &'a str>) -> Self {
        let mut text = Quality::default();
        let mut json = Quality::default();
        for range in fields.flat_map(|field| field.split(',')) {
            text.consider(range, ("text", "plain"));
            json.consider(range, ("application", "json"));
        }
        if json.weight > text.weight {
            Format::Json
        } else {
            Format::Text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(fields: &[&str]) -> Format {
        Format::accepted(fields.iter().copied())
    }

    #[test]
    fn the_form_with_the_greater_weight_is_chosen_and_the_text_otherwise() {
        for (fields, format) in [
            (&[][..], Format::Text),
            (&[""], Format::Text),
            (&["*/*"], Format::Text),
            (&["application/json"], Format::Json),
            (&["Application/JSON"], Format::Json),
            (&["application/*"], Format::Json),
            (&["application/json;q=0"], Format::Text),
            (&["text/plain, application/json"], Format::Text),
            (&["application/json, text/plain"], Format::Text),
            (&["text/plain;q=0.5, application/json;q=0.6"], Format::Json),
            (
                &["text/plain;q=0.5", "application/json ; q=0.501"],
                Format::Json,
            ),
            (&["application/json;q=0.5, */*;q=0.4"], Format::Json),
            (&["application/json, */*"], Format::Text),
            // The most specific range decides, wherever it stands.
            (&["*/*, text/plain;q=0.1"], Format::Json),
            (&["text/plain;q=0.1, */*"], Format::Json),
            (&["text/*;q=0.9, text/plain;q=0.1, */*;q=0.5"], Format::Json),
            (&["text/*;q=0, application/json;q=0.001"], Format::Json),
            // Another version of the text is another format.
            (
                &["text/plain;version=1.0.0, application/json;q=0.1"],
                Format::Json,
            ),
            (
                &["text/plain;version=\"0.0.4\", application/json;q=0.1"],
                Format::Text,
            ),
            // What is malformed counts for nothing.
            (&["application/json;q=2"], Format::Text),
            (&["application/json;q=-1"], Format::Text),
            (&["application/json;q=0.5000"], Format::Text),
            (&["application/json;q="], Format::Text),
            (&["json, ;, /, application/json;x;q=0.1"], Format::Json),
            (&["image/png"], Format::Text),
        ] {
            assert_eq!(accepted(fields), format, "{fields:?}");
        }
    }

    #[test]
    fn prometheus_and_browsers_get_the_text() {
        for field in [
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
             application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ] {
            assert_eq!(accepted(&[field]), Format::Text, "{field}");
        }
    }
}
