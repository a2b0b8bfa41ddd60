// The client and answers of every kind, from a server of this file.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import test from "node:test";
import { category, followed, publish, replace, until } from "./support.mjs";

const id = (number, run = "019a5b3c-1234-8abc") => `${run}-8000-${number.toString(16).padStart(12, "0")}`;
const OLDER = "019a5b3c-1233-8abc";
const NEWER = "019a5b3c-1235-8abc";

/** A server that answers with these functions, one after the other, and then holds every poll. */
async function scripted(t, ...answers) {
	const requests = [];
	const server = createServer((request, response) => {
		request.resume();
		requests.push({ url: new URL(request.url, "http://localhost"), at: performance.now(), headers: request.headers, method: request.method });
		answers.shift()?.(response, request);
	});
	await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
	t.after(() => {
		server.closeAllConnections();
		server.close();
	});
	const url = `http://127.0.0.1:${server.address().port}/events`;
	return { url, requests, parameter: (at, name) => requests[at].url.searchParams.get(name) };
}

const json = (body, position, status = 200, fields = {}) => (response) => {
	const headers = position ? { "Last-Event-ID": position, ...fields } : fields;
	response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(body && JSON.stringify(body));
};
const at = (position) => json(undefined, position, 204);
const events = (numbers, { gap, run, position } = {}) => json({
	events: numbers.map((number) => ({ id: id(number, run), category: "c", timestamp: 1, data: number })),
	...(gap && { gap }),
}, position ?? id(numbers.at(-1), run));
const refuse = (status, fields) => json({ error: `refused with ${status}` }, undefined, status, fields);

test("the first poll asks for a position at once, the next ones wait from there", async (t) => {
	const server = await scripted(t, at(id(7)), at(id(9)), events([10, 11]));
	const seen = followed(server.url, ["a b", "c&d"], { timeout: 33, limit: 5 });
	await until("four polls have come", () => server.requests.length === 4);
	const of = (name) => [0, 1, 2, 3].map((poll) => server.parameter(poll, name));
	assert.deepEqual(of("timeout"), ["0", "33", "33", "33"]);
	assert.deepEqual(of("last_id"), ["", id(7), id(9), id(11)]);
	assert.deepEqual(of("limit"), ["5", "5", "5", "5"]);
	assert.deepEqual(server.requests[0].url.searchParams.getAll("category"), ["a b", "c&d"]);
	assert.deepEqual(seen.data, [10, 11]);
	await seen.stop();
});

test("a status that may pass is tried again, with doubled waits, and one that will not is final", async (t) => {
	// 421 is tried again by fetch itself, too.
	for (const status of [408, 429, 500, 502, 503, 504]) {
		const server = await scripted(t, at(id(1)), refuse(status), refuse(status), refuse(status), at(id(1)), events([2]));
		const seen = followed(server.url, "c", { backoff: [20, 1000] });
		await until("the event has come", () => seen.data.length === 1);
		assert.deepEqual(seen.errors.map((error) => error.status), [status, status, status]);
		seen.waits.forEach((wait, times) => assert.ok(wait > 10 * 2 ** times && wait <= 20 * 2 ** times, `${wait}`));
		assert.deepEqual(seen.states, ["live", "waiting", "waiting", "waiting", "live"]);
		// After a failure, a poll without a wait tells whether it is over.
		assert.deepEqual([1, 2, 3, 4, 5].map((poll) => server.parameter(poll, "timeout")), ["60", "0", "0", "0", "60"]);
		await seen.stop();
	}
	for (const status of [400, 401, 403, 404, 405, 410]) {
		const server = await scripted(t, at(id(1)), refuse(status));
		const seen = followed(server.url, "c");
		await assert.rejects(seen.done, { status, message: new RegExp(`refused with ${status}`) });
		assert.equal(server.requests.length, 2);
	}
});

test("waits have jitter and an upper end", async (t) => {
	const server = await scripted(t, at(id(1)), ...Array.from({ length: 30 }, () => refuse(503)));
	const seen = followed(server.url, "c", { backoff: [1, 4] });
	await until("thirty have failed", () => seen.waits.length === 30);
	const last = seen.waits.slice(5);
	assert.ok(last.every((wait) => wait > 2 && wait <= 4) && new Set(last).size > 10, `${last}`);
	await seen.stop();
});

test("a Retry-After counts, in seconds or as a date, and neither a network nor a page that comes back cuts it short", async (t) => {
	const page = Object.assign(new EventTarget(), { hidden: false });
	const target = new EventTarget();
	replace(t, "document", page);
	replace(t, "addEventListener", target.addEventListener.bind(target));
	const in2 = new Date(Date.now() + 2000).toUTCString();
	const server = await scripted(t, at(id(1)), refuse(503, { "Retry-After": "1" }), events([2]));
	const seen = followed(server.url, "c");
	await until("it waits", () => seen.waits.length === 1);
	assert.ok(seen.waits[0] >= 1000 && seen.waits[0] <= 1250, `${seen.waits}`);
	page.dispatchEvent(new Event("visibilitychange"));
	target.dispatchEvent(new Event("online"));
	await until("the event has come", () => seen.data.length === 1);
	assert.ok(server.requests[2].at - server.requests[1].at >= 990);
	await seen.stop();
	const dated = await scripted(t, at(id(1)), refuse(503, { "Retry-After": in2 }), refuse(503, { "Retry-After": "99999" }));
	const later = followed(dated.url, "c");
	await until("it waits", () => later.waits.length === 1);
	assert.ok(later.waits[0] > 0 && later.waits[0] <= 2500, `${later.waits}`);
	await until("it waits again", () => later.waits.length === 2);
	assert.ok(later.waits[1] >= 300000 && later.waits[1] <= 375000, `${later.waits}`);
	const began = performance.now();
	await later.stop();
	assert.ok(performance.now() - began < 500, "an abort ends the wait");
});

test("a network that comes back ends a wait, and a poll on a connection that may be dead", async (t) => {
	const target = new EventTarget();
	replace(t, "addEventListener", target.addEventListener.bind(target));
	const server = await scripted(t, at(id(1)), refuse(503), at(id(1)), () => {}, events([2]));
	const seen = followed(server.url, "c", { backoff: [60000, 60000] });
	await until("it waits", () => seen.waits.length === 1);
	target.dispatchEvent(new Event("online"));
	await until("a poll is parked", () => server.requests.length === 4);
	target.dispatchEvent(new Event("online"));
	await until("the event has come", () => seen.data.length === 1);
	assert.deepEqual(seen.states, ["live", "waiting", "live"]);
	assert.equal(server.parameter(4, "last_id"), id(1));
	await seen.stop();
});

test("a page that is shown again ends a wait and a poll that is overdue, but no other poll", async (t) => {
	const page = Object.assign(new EventTarget(), { hidden: true });
	replace(t, "document", page);
	const server = await scripted(t, at(id(1)), refuse(503), at(id(1)), () => {}, events([2]));
	const seen = followed(server.url, "c", { backoff: [60000, 60000], timeout: 1000 });
	await until("it waits", () => seen.waits.length === 1);
	const show = (hidden) => {
		page.hidden = hidden;
		page.dispatchEvent(new Event("visibilitychange"));
	};
	show(true);
	show(false);
	await until("a poll is parked", () => server.requests.length === 4);
	show(false);
	// As after a sleep of the machine.
	const now = Date.now;
	t.after(() => (Date.now = now));
	assert.equal(server.requests.length, 4);
	Date.now = () => now() + 1_011_000;
	show(false);
	await until("the event has come", () => seen.data.length === 1);
	assert.equal(server.requests.length >= 5, true);
	await seen.stop();
});

test("an answer that breaks off, or is not of the API, counts as a failure and moves nothing", async (t) => {
	const broken = (response) => {
		response.writeHead(200, { "Content-Length": 1000, "Last-Event-ID": id(9) });
		response.write('{"events":[');
		setTimeout(() => response.destroy(), 5);
	};
	const html = (response) => response.writeHead(200, { "Last-Event-ID": id(9) }).end("<p>Log in to the Wi-Fi</p>");
	const closed = (response) => response.destroy();
	const other = json({ error: "of a proxy" }, id(9));
	for (const bad of [broken, html, closed, other]) {
		const server = await scripted(t, at(id(1)), bad, events([2]));
		const seen = followed(server.url, "c");
		await until("the event has come", () => seen.data.length === 1);
		assert.deepEqual(seen.states, ["live", "waiting", "live"]);
		assert.equal(server.parameter(2, "last_id"), id(1));
		await seen.stop();
	}
});

test("a poll that is never answered ends by itself", async (t) => {
	t.mock.method(AbortSignal, "timeout", (ms) => {
		assert.equal(ms, ms < 11000 ? 10000 : 17000);
		return ms === 10000 ? new AbortController().signal : AbortSignal.abort(new DOMException("late", "TimeoutError"));
	});
	const server = await scripted(t, at(id(1)));
	const seen = followed(server.url, "c", { timeout: 7 });
	await until("it has failed", () => seen.errors.length === 1);
	assert.equal(seen.errors[0].name, "TimeoutError");
	await seen.stop();
});

test("events that came before are not new, and an answer with nothing else counts as a failure", async (t) => {
	const server = await scripted(t, at(id(4)), events([3, 4, 5, 6]), events([5, 6]), events([2]), events([6, 7]));
	const seen = followed(server.url, "c");
	await until("the last has come", () => seen.data.length === 3);
	assert.deepEqual(seen.data, [5, 6, 7]);
	assert.equal(seen.errors.length, 2);
	assert.match(seen.errors[0].message, /nothing new/);
	await seen.stop();
});

test("random ids have no order, and are remembered", async (t) => {
	const random = (digit) => `${digit}`.repeat(8) + "-0000-4000-8000-000000000000";
	const answer = (...digits) => json({
		events: digits.map((digit) => ({ id: random(digit), category: "c", timestamp: 1, data: digit })),
	}, random(digits.at(-1)));
	const server = await scripted(t, at(random(5)), answer(9, 3), answer(9, 3), answer(9, 3, 1));
	const seen = followed(server.url, "c");
	await until("the last has come", () => seen.data.length === 3);
	assert.deepEqual(seen.data, [9, 3, 1]);
	assert.equal(seen.errors.length, 1);
	await seen.stop();
});

test("a gap is reported once, before the events that follow it", async (t) => {
	const server = await scripted(t, at(id(4)), events([7, 8], { gap: true }), events([7, 8], { gap: true }), events([9]));
	const order = [];
	const seen = followed(server.url, "c", {
		onGap: ({ after }) => order.push(`gap after ${after}`), onEvent: ({ data }) => order.push(data),
	});
	await until("the last has come", () => seen.data.length === 3);
	assert.deepEqual(order, [`gap after ${id(4)}`, 7, 8, 9]);
	await seen.stop();
});

test("a newer run continues, an older one only after a gap", async (t) => {
	const server = await scripted(
		t, at(id(9)), events([1, 2], { run: NEWER }), events([10]), events([1], { run: OLDER, gap: true }), events([2], { run: OLDER }),
	);
	const seen = followed(server.url, "c");
	await until("the last has come", () => seen.data.length === 4);
	assert.deepEqual(seen.data, [1, 2, 1, 2]);
	assert.deepEqual(seen.gaps, [id(2, NEWER)]);
	assert.equal(server.parameter(4, "last_id"), id(1, OLDER));
	await seen.stop();
});

test("an answer without a position is used by its events, and the first one is asked for again", async (t) => {
	const server = await scripted(t, json(undefined, undefined, 204), at(id(1)), (response) => {
		events([2])({ writeHead: (status) => response.writeHead(status), end: (text) => response.end(text) });
	});
	const seen = followed(server.url, "c");
	await until("four polls have come", () => server.requests.length >= 3 && seen.data.length === 1);
	assert.match(seen.errors[0].message, /Last-Event-ID/);
	await seen.stop();
});

test("a server that does not hold polls is not asked without end", async (t) => {
	const server = await scripted(t, ...Array.from({ length: 1000 }, () => at(id(1))));
	const seen = followed(server.url, "c", { backoff: [100, 100] });
	await until("five polls have come", () => server.requests.length === 5);
	const { requests } = server;
	assert.ok(requests[4].at - requests[3].at >= 49 || requests[3].at - requests[2].at >= 49);
	await seen.stop();
});

test("requests pass every cache, and go with the credentials that are set", async (t) => {
	const name = category();
	const calls = [];
	replace(t, "fetch", async (url, init) => {
		calls.push([String(url), init]);
		if (calls.length > 2) return new Promise((_, reject) => init.signal.addEventListener("abort", () => reject(init.signal.reason)));
		return new Response('{"success": true}', { headers: { "Last-Event-ID": id(3) } });
	});
	const options = { credentials: "include", headers: { "X-Own": "1" } };
	const answered = await publish("/publish", name, 1, options);
	assert.equal(answered, id(3));
	const seen = followed("/events?tenant=7", name, options);
	await until("three requests have gone", () => calls.length === 3);
	for (const [, init] of calls) {
		assert.equal(init.cache, "no-store");
		assert.equal(init.credentials, "include");
		assert.equal(init.headers["X-Own"], "1");
	}
	assert.equal(calls[0][1].method, "POST");
	assert.deepEqual(JSON.parse(calls[0][1].body), { category: name, data: 1 });
	assert.ok(calls[1][0].startsWith("/events?tenant=7&category="), calls[1][0]);
	await seen.stop();
});

test("a publish is sent once, and says why it failed and when to try again", async (t) => {
	const server = await scripted(t, refuse(503, { "Retry-After": "7" }), (response) => response.destroy(), json({ success: true }, id(1)));
	await assert.rejects(publish(server.url, "c", 1), { status: 503, retryAfter: 7000 });
	await assert.rejects(publish(server.url, "c", 1), (error) => error.status === undefined);
	assert.equal(await publish(server.url, "c", 1, { timeout: 5 }), id(1));
	assert.equal(server.requests.length, 3);
	const abort = new AbortController();
	const parked = publish(server.url, "c", 1, { signal: abort.signal });
	await until("it has been sent", () => server.requests.length === 4);
	abort.abort();
	await assert.rejects(parked, { name: "AbortError" });
});

test("no listener stays behind", async (t) => {
	const counts = { added: 0 };
	const target = new EventTarget();
	const page = Object.assign(new EventTarget(), { hidden: false });
	const signals = [];
	const adds = (to) => (type, listener, options) => {
		counts.added++;
		signals.push(options.signal);
		to(type, listener, options);
	};
	replace(t, "addEventListener", adds(target.addEventListener.bind(target)));
	page.addEventListener = adds(EventTarget.prototype.addEventListener.bind(page));
	replace(t, "document", page);
	const server = await scripted(t, at(id(1)));
	const seen = followed(server.url, "c");
	await until("it is live", () => seen.states.length);
	await seen.stop();
	assert.equal(counts.added, 2);
	assert.ok(signals.every((signal) => signal.aborted));
});

test("a URL may have a query of its own, such as the name of the subscriber", async (t) => {
	const server = await scripted(t, at(id(1)), events([2]));
	const seen = followed(`${server.url}?subscriber=${encodeURIComponent("ä & b")}`, "c");
	await until("three polls have come", () => server.requests.length === 3);
	for (const poll of [0, 1, 2]) {
		assert.equal(server.parameter(poll, "subscriber"), "ä & b");
		assert.equal(server.parameter(poll, "category"), "c");
		assert.equal(server.requests[poll].url.pathname, "/events");
	}
	assert.deepEqual(seen.data, [2]);
	await seen.stop();
});
