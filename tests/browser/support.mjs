// What both files of tests share.
import assert from "node:assert/strict";
import { after } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

export const { follow, publish } = await import(process.env.MODULE);
export const { PLAIN, GOLONGPOLL, GUARDED, KEPT, CONTROL } = process.env;

const LIMIT = 20000;

// A test that fails leaves nothing behind that would keep the process alive.
const running = new Set();
after(() => running.forEach((abort) => abort.abort()));
setTimeout(() => {
	console.error("the tests take too long");
	process.exit(1);
}, 5 * LIMIT).unref();

/** Waits until the condition is met. */
export async function until(what, met) {
	const end = Date.now() + LIMIT;
	while (!(await met())) {
		assert.ok(Date.now() < end, `waited in vain until ${what}`);
		await sleep(2);
	}
}

export const control = async (command) => {
	const response = await fetch(`${CONTROL}/${command}`);
	assert.equal(response.status, 200, command);
	return response.text();
};

export const parked = (count) => until(`${count} polls are parked`, async () => Number(await control("parked")) === count);

/** Follows, and keeps what the page would get. */
export function followed(url, categories, options = {}) {
	const abort = new AbortController();
	running.add(abort);
	const seen = { data: [], ids: [], gaps: [], states: [], errors: [], waits: [] };
	seen.done = follow(url, categories, {
		signal: abort.signal,
		backoff: [5, 50],
		onGap: (gap) => seen.gaps.push(gap.after),
		onState: (state, error, wait) => {
			seen.states.push(state);
			if (error) seen.errors.push(error);
			if (error) seen.waits.push(wait);
		},
		...options,
		onEvent: async (event) => {
			await options.onEvent?.(event, seen);
			seen.data.push(event.data);
			seen.ids.push(event.id);
		},
	});
	// A test that expects an error looks at `done`.
	seen.done.catch(() => {});
	seen.stop = () => {
		abort.abort();
		return seen.done;
	};
	return seen;
}

let categories = 0;
/** A category of its own for each test. */
export const category = () => `category ${++categories} & more`;

/** Replaces a global for the time of a test. */
export function replace(t, name, value) {
	const before = Object.getOwnPropertyDescriptor(globalThis, name);
	Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
	t.after(() => (before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]));
}
