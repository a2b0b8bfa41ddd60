// Types and docs: long-polling.d.ts

const fail = (why, url, status, wait) => {
	throw Object.assign(new Error(`${url}: ${status}: ${why}`), { status, retryAfter: Math.max(wait || 0, 0) });
};

async function ask(url, { headers, credentials, signal }, seconds, init) {
	const signals = [AbortSignal.timeout(seconds * 1000), signal, init.signal].filter(Boolean);
	// Else Chrome sends equal GETs one after the other.
	const response = await fetch(url, {
		cache: "no-store", credentials, ...init, signal: AbortSignal.any(signals),
		headers: { ...init.headers, ...await (headers?.call ? headers() : headers) },
	});
	const { status, headers: fields } = response;
	const body = status === 204 ? {} : await response.json().catch(() => ({ error: "not JSON" }));
	if (/20[04]/.test(status) && !body.error) return { ...body, end: fields.get("Last-Event-ID") };
	const after = fields.get("Retry-After");
	fail(body.error, url, status, after >= 0 ? after * 1000 : Date.parse(after) - Date.now());
}

export const publish = async (url, category, data, options = {}) => (await ask(url, options, options.timeout ?? 10, {
	method: "POST", body: JSON.stringify({ category, data }), headers: { "Content-Type": "application/json" },
})).end;

// The server's run in an id; random ids have no order.
const run = (id) => id?.[14] === "8" ? id.slice(0, 18) : "";
const older = (id, than) => run(id) && run(id) < run(than);
const ahead = (id, old, lost) => id && (run(id) && run(old) ? id > old || (lost && run(id) !== run(old)) : id !== old);

export async function follow(url, categories, options = {}) {
	const { from = "now", signal, onEvent, onGap, onState, timeout = 60, limit = "", session, backoff = [100, 3e4] } = options;
	const { document: page } = globalThis, seen = new Set(), over = new AbortController();
	let position = /now|oldest/.test(from) ? "" : from;
	// Storage may be forbidden or full.
	try { position = (session && sessionStorage[session]) || position; } catch {}
	const move = (id) => {
		position = id;
		try { if (session) sessionStorage[session] = id; } catch {}
	};
	let state, failures = 0, quick = 0, lost, stop, due, woken;
	const tell = (next, error, wait) => (next !== state || error) && onState?.(state = next, error, wait);
	const delay = (count) => Math.min(backoff[0] * 2 ** count, backoff[1]) * (1 - Math.random() / 2);
	// The page may end a wait from the time `due` on.
	const pause = (ms, wakes) => new Promise((done) => {
		const timer = setTimeout(done, ms);
		due = wakes;
		stop = () => done(clearTimeout(timer));
	});
	signal?.addEventListener("abort", () => stop?.(), over);
	// A change of network or a sleep may kill a connection.
	const wake = (ends) => ends && stop(woken = true);
	globalThis.addEventListener?.("online", () => wake(due), over);
	page?.addEventListener("visibilitychange", () => wake(!page.hidden && Date.now() > due), over);
	try {
		while (!signal?.aborted) {
			const oldest = from === "oldest" && !position, before = position, start = Date.now();
			// Zero to learn a position, or that a failure is over.
			const seconds = failures || !position ? 0 : timeout;
			const query = new URLSearchParams([
				...[categories].flat().map((name) => ["category", name]),
				["timeout", seconds], ["since_time", oldest ? 1 : ""], ["last_id", position], ["limit", limit],
			]);
			const poll = new AbortController();
			stop = () => poll.abort();
			due = start + (seconds + 10) * 1000;
			woken = false;
			let fresh, gap, end;
			try {
				const answer = await ask(url + (url.includes("?") ? "&" : "?") + query, options, seconds + 10, poll);
				const { events = [] } = answer;
				gap = answer.gap;
				fresh = events.filter(({ id }) => !seen.has(id) && (older(id, before) ? gap : ahead(id, before, true)));
				end = [answer.end, fresh.at(-1)?.id].find((id) => ahead(id, before, gap)) ?? before;
				if (!end) fail("no Last-Event-ID", url, 200);
				if (events[0] && !fresh[0] && end === before) fail("nothing new; from a cache?", url, 200);
			} catch (error) {
				if (signal?.aborted) break;
				if (woken) continue;
				if (/40[01345]|410/.test(error.status)) throw error;
				const { retryAfter = 0 } = error;
				const wait = Math.max(delay(failures++), Math.min(retryAfter, 3e5) * (1 + Math.random() / 4));
				tell("waiting", error, wait);
				await pause(wait, retryAfter ? NaN : 1);
				continue;
			}
			failures = 0;
			tell("live");
			if (gap && !oldest && !(lost && end === before)) await onGap?.({ after: before });
			lost = gap;
			for (const event of fresh) {
				if (signal?.aborted) return position;
				await onEvent?.(event);
				if (seen.size > 4096) seen.clear();
				seen.add(event.id);
				move(event.id);
			}
			move(end);
			quick = fresh[0] || !seconds || Date.now() - start > 500 ? 0 : quick + 1;
			// The server does not hold polls, or two take turns.
			if (quick > 2 || older(end, before)) await pause(Math.min(delay(quick), 1000), NaN);
		}
		return position;
	} finally {
		over.abort();
	}
}
