/** One event, as the server sends it. */
export interface LongPollingEvent<T = unknown> {
	/** The id, which is a position, too. */
	id: string;
	category: string;
	/** Unix time in milliseconds. */
	timestamp: number;
	data: T;
}

/**
 * What went wrong with a request: a refusal has a `status`, a network error or a time-out has none. An answer that is not one
 * of the API has the status 200.
 */
export interface LongPollingError extends Error {
	status?: number;
	/** The wait that the server asks for, in milliseconds; 0 if it asks for none. */
	retryAfter?: number;
}

type Fields = Record<string, string>;

export interface RequestOptions {
	/** Stops at once. */
	signal?: AbortSignal;
	/** Header fields of each request, or a function that returns them, such as one that renews a token. */
	headers?: Fields | (() => Fields | Promise<Fields>);
	/** As of `fetch`. Defaults to its `"same-origin"`. */
	credentials?: RequestCredentials;
}

export interface FollowOptions<T = unknown> extends RequestOptions {
	/**
	 * Where to start: with what is published from now on, with the oldest event that the server has, or after the event or
	 * position with this id. Defaults to `"now"`.
	 */
	from?: "now" | "oldest" | (string & {});
	/**
	 * The key under which `sessionStorage` keeps the position, so that a page goes on from there after a reload; then `from`
	 * counts only the first time. Use one key for each list of categories. Defaults to none.
	 */
	session?: string;
	/** Gets each event, oldest first. The next one waits for a promise that it returns. An error that it throws ends `follow`. */
	onEvent?: (event: LongPollingEvent<T>) => unknown;
	/**
	 * Says that events after the position `after` are lost: the server no longer has them. The events that follow are
	 * complete. A page that mirrors some state loads it again.
	 */
	onGap?: (gap: { after: string }) => unknown;
	/**
	 * Says that the last poll was answered (`"live"`), or failed (`"waiting"`), with the error and the wait before the next one
	 * in milliseconds.
	 */
	onState?: (state: "live" | "waiting", error?: LongPollingError, wait?: number) => void;
	/** How long the server may hold one poll, in whole seconds. Defaults to 60. */
	timeout?: number;
	/** The most events of one answer. Defaults to the server's limit. */
	limit?: number;
	/**
	 * The shortest and the longest wait after a failure, in milliseconds. It doubles with each failure, less a random part of
	 * up to a half; a `Retry-After` that asks for more counts, up to five minutes. Defaults to `[100, 30000]`.
	 */
	backoff?: [number, number];
}

/**
 * Follows categories with one poll at a time, and keeps its position: no event that the server still has is missed or comes
 * twice, whatever becomes of the connection. Network errors, time-outs and the statuses 429 and 5xx are retried without end.
 *
 * @param url the server's path of polls, such as `/events`
 * @returns the position, once the signal has stopped it
 * @throws LongPollingError for a status that another try would not change: 400, 401, 403, 404, 405 and 410
 */
export function follow<T = unknown>(
	url: string, categories: string | string[], options?: FollowOptions<T>,
): Promise<string>;

export interface PublishOptions extends RequestOptions {
	/** How long to wait for the answer, in seconds. Defaults to 10. */
	timeout?: number;
}

/**
 * Publishes an event, once: after an error without a status, it may have been published all the same.
 *
 * @param url the server's path of publishes, such as `/publish`
 * @param data any JSON value but null
 * @returns the id of the event
 * @throws LongPollingError if the server refuses or does not answer
 */
export function publish(url: string, category: string, data: unknown, options?: PublishOptions): Promise<string>;
