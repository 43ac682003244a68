// Plain `fetch`: each answer's status and body or, for a job to be `parsed`, the server-sent events
// that `eventsource-parser` makes of the body.

import { EventSourceParserStream } from "eventsource-parser/stream";
import { run } from "./jobs.mjs";

await run(async (job, url) => {
  const { path, ...request } = job.request;
  const response = await fetch(url + path, request);
  if (!job.parsed || !response.ok) {
    return { status: response.status, body: await response.text() };
  }
  const events = [];
  const parser = response.body
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream());
  for await (const { event, data } of parser) events.push([event ?? "message", data]);
  return { status: response.status, events };
});
