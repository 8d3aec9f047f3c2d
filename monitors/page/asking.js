// Asks for JSON, and listens to what has changed. A stream that breaks is opened again; while there is none, time does its work.

const PATIENCE_MS = 15_000;
const POLL_MS = 10_000;

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export async function ask(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = given.length ? `?${new URLSearchParams(given)}` : "";
  const response = await fetch(path + query, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, body.detail ?? `answered ${response.status}`);
  return body;
}

// Calls `changed(part)` for each part whose revision is new, and `said(state)` with live, waiting or polling. A hidden
// tab gives its stream back: browsers open only a few connections to a host.
export function listen(parts, changed, said) {
  const known = {};
  let stream = null;
  let again = 0;

  const take = (revisions) => {
    for (const part of parts) {
      if (revisions[part] === undefined || revisions[part] === known[part]) continue;
      known[part] = revisions[part];
      changed(part);
    }
  };
  const poll = async () => {
    try {
      take((await ask("/api/state")).revisions);
      said("polling");
    } catch {
      said("waiting");
    }
  };
  const close = () => {
    clearTimeout(again);
    stream?.close();
    stream = null;
  };
  const open = () => {
    close();
    if (document.hidden) return;
    stream = new EventSource("/events");
    stream.addEventListener("open", () => said("live"));
    stream.addEventListener("hello", (event) => take(JSON.parse(event.data)));
    for (const part of parts) stream.addEventListener(part, (event) => take({ [part]: JSON.parse(event.data).revision }));
    stream.addEventListener("error", () => {
      said("waiting");
      if (stream?.readyState !== EventSource.CLOSED) return; // the browser connects again by itself
      close();
      poll();
      again = setTimeout(open, POLL_MS);
    });
  };
  document.addEventListener("visibilitychange", open);
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
  open();
}
