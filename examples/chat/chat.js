// The chat's page. Each room is a category, and one poll follows all rooms.
import { follow, publish } from "/long-polling.js";

const element = (id) => document.getElementById(id);
const make = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

/** The rooms by name: each with its log, its button, and the number of unread messages. */
const rooms = new Map();
let current;

/** The ids of the messages that are shown: a room that is joined later begins with its history. */
const shown = new Set();

/** The category that says who is in a room begins with this. */
const PEOPLE = "people/";

/** Ends the present call of `follow`: there is another one whenever the rooms or the own name change. */
let following = new AbortController();
/** Where the last call ended. */
let position = Promise.resolve("oldest");

// Private windows may forbid storage.
const stored = (key) => {
	try { return localStorage.getItem(key); } catch { return null; }
};
const store = (key, value) => {
	try { localStorage.setItem(key, value); } catch { /* Not kept. */ }
};

function addRoom(name) {
	const button = make("button", "", name);
	const unread = make("span", "unread");
	unread.hidden = true;
	button.type = "button";
	button.append(unread);
	button.addEventListener("click", () => show(name));
	const item = make("li", "");
	item.append(button);
	element("rooms").append(item);

	const log = make("div", "log");
	log.setAttribute("role", "log");
	log.setAttribute("aria-label", `Messages in ${name}`);
	// History is not read out.
	log.setAttribute("aria-busy", "true");
	log.tabIndex = 0;
	log.hidden = true;
	element("logs").append(log);
	const room = { log, button, unread, count: 0, atEnd: true, people: {} };
	log.addEventListener("scroll", () => {
		room.atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
	});
	rooms.set(name, room);
}

function scrollToEnd({ log }) {
	log.scrollTop = log.scrollHeight;
}

function show(name) {
	current = name;
	for (const [other, { log, button }] of rooms) {
		const isCurrent = other === name;
		log.hidden = !isCurrent;
		if (isCurrent) button.setAttribute("aria-current", "true");
		else button.removeAttribute("aria-current");
	}
	element("title").textContent = name;
	const room = rooms.get(name);
	scrollToEnd(room);
	countUnread(room, 0);
	showPeople(room);
}

/** Shows who is in a room. Entries that stay are left alone: a screen reader reads those that come and go. */
function showPeople({ people: { names = [], subscribers = 0 } }) {
	const entries = new Set(names);
	const guests = subscribers - names.length;
	if (guests > 0) entries.add(guests === 1 ? "1 guest" : `${guests} guests`);
	const list = element("people");
	for (const item of [...list.children]) {
		if (!entries.delete(item.textContent)) item.remove();
	}
	list.append(...[...entries].map((entry) => make("li", "", entry)));
}

function countUnread(room, count) {
	room.count = count;
	room.unread.hidden = count === 0;
	room.unread.replaceChildren(String(count), make("span", "visually-hidden", " unread"));
}

/** Adds an entry to a log, and keeps its end in view unless the reader has scrolled up. */
function append(room, entry) {
	room.log.append(entry);
	if (room.atEnd) scrollToEnd(room);
}

function onEvent({ id, category, timestamp, data }) {
	if (category.startsWith(PEOPLE)) {
		const name = category.slice(PEOPLE.length);
		const room = rooms.get(name);
		if (!room) return;
		room.people = data;
		if (name === current) showPeople(room);
		return;
	}
	const room = rooms.get(category);
	if (!room || shown.has(id)) return;
	shown.add(id);
	// A terminal sends a text, and this page a sender and a text.
	const from = typeof data?.from === "string" ? data.from : "terminal";
	const text = typeof data?.text === "string" ? data.text : typeof data === "string" ? data : JSON.stringify(data);
	const time = make("time", "", new Date(timestamp).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
	time.dateTime = new Date(timestamp).toISOString();
	const entry = make("div", "message");
	entry.append(make("span", "from", from), time, make("span", "words", text));
	append(room, entry);
	if (category !== current) countUnread(room, room.count + 1);
}

function onGap() {
	// Which room has lost messages is not known.
	for (const room of rooms.values()) {
		append(room, make("p", "note", "Messages may be missing here: the server no longer has them."));
	}
}

function onState(state, error, wait) {
	const status = element("status");
	status.classList.toggle("lost", state !== "live");
	if (state === "live") {
		status.textContent = "Connected";
		// What came with the first answer is history.
		setTimeout(() => rooms.forEach(({ log }) => log.setAttribute("aria-busy", "false")), 500);
	} else {
		const seconds = Math.max(1, Math.round(wait / 1000));
		status.textContent = `Connection lost. Trying again in ${seconds} s.`;
		console.debug(error.message);
	}
}

/** Follows all rooms, from where the last call of `follow` ended or, for a room with a history, from `"oldest"`. */
function run(from) {
	following.abort();
	following = new AbortController();
	const { signal } = following;
	position = position.then(async (reached) => {
		const start = from ?? (reached || "oldest");
		if (signal.aborted) return start;
		// The server counts a page without a name as a guest.
		const name = stored("name");
		const url = name ? `/events?subscriber=${encodeURIComponent(name)}` : "/events";
		const categories = [...rooms.keys()].flatMap((room) => [room, PEOPLE + room]);
		try {
			return await follow(url, categories, { from: start, signal, onEvent, onGap, onState });
		} catch (error) {
			const status = element("status");
			status.classList.add("lost");
			status.textContent = `The server refuses: ${error.message} Load the page again to retry.`;
			return start;
		}
	});
}

// The keyboard of a phone takes half of the page.
addEventListener("resize", () => {
	const room = rooms.get(current);
	if (room.atEnd) scrollToEnd(room);
});

element("join").addEventListener("submit", (event) => {
	event.preventDefault();
	const name = element("room").value.trim();
	element("room").value = "";
	if (!name) return;
	if (!rooms.has(name)) {
		addRoom(name);
		store("rooms", JSON.stringify([...rooms.keys()]));
		run("oldest");
	}
	show(name);
	element("text").focus();
});

element("name").addEventListener("change", () => {
	store("name", element("name").value.trim());
	run();
});

element("send").addEventListener("submit", async (event) => {
	event.preventDefault();
	const [from, text] = [element("name").value.trim(), element("text").value.trim()];
	const problem = element("problem");
	if (!from || !text) return;
	try {
		// A double click does not send it twice.
		element("text").value = "";
		problem.hidden = true;
		await publish("/publish", current, { from, text });
	} catch (error) {
		if (!element("text").value) element("text").value = text;
		problem.textContent = error.status
			? `Not sent: ${error.message}`
			: "Perhaps not sent: the server did not answer. Look for your message before you send it again.";
		problem.hidden = false;
	}
});

let known = [];
try { known = JSON.parse(stored("rooms")) ?? []; } catch { /* The three rooms below. */ }
for (const name of new Set(["chat", "help", "random", ...known])) addRoom(String(name));
element("name").value = stored("name") ?? "";
show("chat");
run();
