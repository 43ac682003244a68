// `Chat` of `@ai-sdk/react` (argument 1: its major version): the state machine behind `useChat`.

import { run } from "./jobs.mjs";
import { shown, transportOf } from "./ui-shown.mjs";

const major = process.argv[2];
const { Chat } = await import(`${major}-react`);
const { DefaultChatTransport } = await import(major);

await run(async (job, url) => {
  const chat = new Chat({ transport: transportOf(DefaultChatTransport, job, url), onError() {} });
  await chat.sendMessage({ text: job.text });
  const last = chat.messages.at(-1);
  const seen = shown(last?.role === "assistant" ? last : undefined, chat.error);
  return { ...seen, state: chat.status };
});
