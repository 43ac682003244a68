// A JavaScript sample as it is printed (`job.code`), with the variables that it takes from outside.
// Everything that it prints is kept, in order: [stream, text].

import { run } from "./jobs.mjs";

const AsyncFunction = (async () => {}).constructor;

await run(async (job) => {
  const printed = [];
  const line = (stream) => (...words) => printed.push([stream, `${words.join(" ")}\n`]);
  const given = {
    process: { env: job.environment, stdout: { write: (text) => printed.push(["out", text]) } },
    console: { log: line("out"), error: line("err") },
    sessionId: job.conversation,
  };
  try {
    await new AsyncFunction(...Object.keys(given), job.code)(...Object.values(given));
  } catch (error) {
    printed.push(["thrown", error.name]);
  }
  return { printed };
});
