// What all scripts here have in common. Their standard input is JSON: `{jobs: {NAME: [JOB…]}, …}`,
// a list of messages to send per row of the table. They print one JSON object: what was seen of
// each message, `{NAME: {CASE: SEEN}}`.

import { readFileSync } from "node:fs";
import { Agent, fetch as undiciFetch } from "undici";

const AT_A_TIME = 4;

const input = JSON.parse(readFileSync(0, "utf8"));

const agent = new Agent({ allowH2: true, connect: { ca: input.ca } });

// Clients take the global `fetch`: under TLS it chooses HTTP/2 by ALPN, else it is Node's own.
const plainFetch = globalThis.fetch;
globalThis.fetch = (url, init) =>
  String(url).startsWith("https:")
    ? undiciFetch(url, { ...init, dispatcher: agent })
    : plainFetch(url, init);

/** What answers a job: the gateway, or the body that the job brings along. */
export function fetchOf(job) {
  return job.body === undefined ? globalThis.fetch : async () => new Response(job.body);
}

/** Sends every row's messages, a few at a time, and prints what `send(job, url)` saw of them. */
export async function run(send) {
  const results = {};
  const waiting = [];
  for (const [row, jobs] of Object.entries(input.jobs)) {
    results[row] = {};
    waiting.push(...jobs.map((job) => [row, job]));
  }
  async function work() {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [row, job] = next;
      try {
        results[row][job.case] = await send(job, row.endsWith("TLS") ? job.tls_url : job.url);
      } catch (error) {
        results[row][job.case] = { crashed: String(error?.stack ?? error) };
      }
    }
  }
  await Promise.all(Array.from({ length: AT_A_TIME }, work));
  // A kept connection would keep the process.
  process.stdout.write(JSON.stringify(results), () => process.exit(0));
}

/** Tokens as the table has them: null unless both were counted. */
export function tokens(usage) {
  const counted = [usage?.promptTokens, usage?.completionTokens];
  return counted.every(Number.isFinite) ? counted : null;
}
