// The client and a real server.
import assert from "node:assert/strict";
import test from "node:test";
import {
	CONTROL, GOLONGPOLL, GUARDED, KEPT, PLAIN, category, control, follow, followed, parked, publish, replace, until,
} from "./support.mjs";

test("nothing is missed between the position that is learned and the first event", async (t) => {
	const name = category();
	const real = globalThis.fetch;
	let polls = 0;
	// An event is published after each answer, before the client can poll again.
	replace(t, "fetch", async (url, init) => {
		const response = await real(url, init);
		if (String(url).startsWith(`${PLAIN}/events`) && polls++ < 5) await publish(`${PLAIN}/publish`, name, polls);
		return response;
	});
	const seen = followed(`${PLAIN}/events`, name);
	await until("all events have come", () => seen.data.length === 5);
	assert.deepEqual(seen.data, [1, 2, 3, 4, 5]);
	assert.deepEqual(seen.gaps, []);
	assert.equal(await seen.stop(), seen.ids.at(-1));
});

test("a poll that is cut off before the first event loses none", async (t) => {
	const name = category();
	const real = globalThis.fetch;
	let polls = 0;
	replace(t, "fetch", async (url, init) => {
		if (String(url).includes("/events") && ++polls === 2) {
			await publish(`${PLAIN}/publish`, name, "while no poll is there");
			throw new TypeError("network error");
		}
		return real(url, init);
	});
	const seen = followed(`${PLAIN}/events`, name);
	await until("the event has come", () => seen.data.length === 1);
	assert.deepEqual(seen.states, ["live", "waiting", "live"]);
	await seen.stop();
});

test("one poll follows several categories, and only those", async () => {
	const [a, b, c] = [category(), category(), category()];
	const seen = followed(`${PLAIN}/events`, [a, b]);
	await parked(1);
	for (const name of [a, c, b, a]) await publish(`${PLAIN}/publish`, name, name);
	await until("three events have come", () => seen.data.length === 3);
	assert.deepEqual(seen.data, [a, b, a]);
	await parked(1);
	await seen.stop();
});

test("the oldest event or an id is where it starts, and the start is no gap", async () => {
	const name = category();
	const ids = [];
	for (let number = 0; number < 25; number++) ids.push(await publish(`${PLAIN}/publish`, name, number));
	// The server keeps twenty.
	const oldest = followed(`${PLAIN}/events`, name, { from: "oldest", limit: 3 });
	await until("the buffered events have come", () => oldest.data.length === 20);
	assert.deepEqual(oldest.ids, ids.slice(5));
	assert.deepEqual(oldest.gaps, []);
	await oldest.stop();
	const after = followed(`${PLAIN}/events`, name, { from: ids[22] });
	await until("the last two have come", () => after.data.length === 2);
	assert.deepEqual([after.data, after.gaps], [[23, 24], []]);
	await after.stop();
	const lost = followed(`${PLAIN}/events`, name, { from: ids[0] });
	await until("the buffered events have come", () => lost.data.length === 20);
	assert.deepEqual(lost.gaps, [ids[0]]);
	await lost.stop();
});

test("an abort stops at once: a poll, between two events, and before the start", async () => {
	const name = category();
	const seen = followed(`${PLAIN}/events`, name);
	await parked(1);
	const began = performance.now();
	await seen.stop();
	assert.ok(performance.now() - began < 1000);
	await parked(0);
	for (let number = 0; number < 5; number++) await publish(`${PLAIN}/publish`, name, number);
	const abort = new AbortController();
	const data = [];
	const position = await follow(`${PLAIN}/events`, name, {
		from: "oldest", signal: abort.signal,
		onEvent: (event) => data.push(event) === 2 && abort.abort(),
	});
	assert.equal(data.length, 2);
	assert.equal(position, data[1].id);
	assert.equal(await follow(`${PLAIN}/events`, name, { signal: abort.signal, from: position }), position);
});

test("an event waits for the promise of the one before, and an error of the page ends it", async () => {
	const name = category();
	for (let number = 0; number < 3; number++) await publish(`${PLAIN}/publish`, name, number);
	const order = [];
	const done = follow(`${PLAIN}/events`, name, {
		from: "oldest",
		onEvent: async ({ data }) => {
			order.push(`begin ${data}`);
			await new Promise((resolve) => setTimeout(resolve, 5));
			order.push(`end ${data}`);
			if (data === 1) throw new Error("of the page");
		},
	});
	await assert.rejects(done, /of the page/);
	assert.deepEqual(order, ["begin 0", "end 0", "begin 1", "end 1"]);
});

test("the position is kept over a reload where it is asked for", async (t) => {
	replace(t, "sessionStorage", {});
	const name = category();
	const options = { session: "chat", from: "oldest" };
	await publish(`${PLAIN}/publish`, name, "before");
	const first = followed(`${PLAIN}/events`, name, options);
	await until("the first has come", () => first.data.length === 1);
	await first.stop();
	await publish(`${PLAIN}/publish`, name, "during the reload");
	const second = followed(`${PLAIN}/events`, name, options);
	await until("the second has come", () => second.data.length === 1);
	assert.deepEqual(second.data, ["during the reload"]);
	await second.stop();
	// An event counts as seen once the page has dealt with it.
	await publish(`${PLAIN}/publish`, name, "half done");
	const third = followed(`${PLAIN}/events`, name, { ...options, onEvent: () => { throw new Error("reload"); } });
	await assert.rejects(third.done, /reload/);
	const fourth = followed(`${PLAIN}/events`, name, options);
	await until("it comes again", () => fourth.data.length === 1);
	assert.deepEqual(fourth.data, ["half done"]);
	await fourth.stop();
});

test("a storage that is forbidden or full does not matter", async (t) => {
	const refuse = () => { throw new Error("forbidden"); };
	replace(t, "sessionStorage", new Proxy({}, { get: refuse, set: refuse }));
	const name = category();
	const seen = followed(`${PLAIN}/events`, name, { session: "x" });
	await until("it is live", () => seen.states.length);
	await publish(`${PLAIN}/publish`, name, 1);
	await until("it has come", () => seen.data.length === 1);
	await seen.stop();
});

test("a restart of a server with a file loses and doubles nothing", async () => {
	const name = category();
	const seen = followed(`${KEPT}/events`, name);
	await until("it is live", () => seen.states.includes("live"));
	await publish(`${KEPT}/publish`, name, 1);
	await until("the first has come", () => seen.data.length === 1);
	await control("stop");
	await until("the loss is noticed", () => seen.states.at(-1) === "waiting");
	await control("start");
	// A connection to the stopped server, which Node keeps, gets one more answer: try again.
	await until("the next server takes the second", () => publish(`${KEPT}/publish`, name, 2).catch((error) => {
		assert.deepEqual([error.status, error.retryAfter], [503, 1000], error.message);
	}));
	await until("the second has come", () => seen.data.length === 2);
	assert.deepEqual([seen.data, seen.gaps, seen.states.at(-1)], [[1, 2], [], "live"]);
	await seen.stop();
});

test("either answer to a poll that timed out is no event", async () => {
	for (const server of [PLAIN, GOLONGPOLL]) {
		const name = category();
		let polls = 0;
		const headers = async () => ({ "X-Poll": `${++polls}` });
		const seen = followed(`${server}/events`, name, { timeout: 1, headers });
		await until("a poll has timed out", () => seen.states.length && polls > 2);
		await publish(`${server}/publish`, name, 1);
		await until("the event has come", () => seen.data.length === 1);
		assert.deepEqual([seen.states, seen.gaps], [["live"], []], server);
		await seen.stop();
	}
});

test("header fields are sent where they are set, renewed for each request, and a refusal is final", async () => {
	const name = category();
	let asked = 0;
	const headers = async () => ({ Authorization: `Bearer ${++asked ? "secret" : ""}` });
	const seen = followed(`${GUARDED}/events`, name, { headers });
	await until("it is live", () => seen.states.length);
	await publish(`${GUARDED}/publish`, name, 1, { headers: { Authorization: "Bearer secret" } });
	await until("the event has come", () => seen.data.length === 1);
	await seen.stop();
	assert.ok(asked >= 2, `${asked}`);
	const refused = { status: 401, message: /unauthorized/ };
	await assert.rejects(follow(`${GUARDED}/events`, name), refused);
	await assert.rejects(publish(`${GUARDED}/publish`, name, 1), refused);
	await assert.rejects(follow(`${PLAIN}/events`, ""), { status: 400 });
	await assert.rejects(follow(`${PLAIN}/nowhere`, name), { status: 404 });
	await assert.rejects(publish(`${PLAIN}/publish`, name, null), { status: 400, message: /null/ });
});

test("a publish gives the id of its event", async () => {
	const name = category();
	const id = await publish(`${PLAIN}/publish`, name, { any: ["JSON", "é"] });
	const response = await fetch(`${PLAIN}/events?timeout=0&since_time=1&category=${encodeURIComponent(name)}`);
	const { events } = await response.json();
	assert.deepEqual(events.map((event) => [event.id, event.data]), [[id, { any: ["JSON", "é"] }]]);
	assert.ok(CONTROL);
});
