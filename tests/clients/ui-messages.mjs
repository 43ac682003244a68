// A release of the AI SDK (argument 1), 5 or later: its default transport and its reader.

import { fetchOf, run } from "./jobs.mjs";
import { shown, transportOf } from "./ui-shown.mjs";

const { DefaultChatTransport, readUIMessageStream } = await import(process.argv[2]);

await run(async (job, url) => {
  let message, error;
  try {
    const stream = await transportOf(DefaultChatTransport, job, url, fetchOf(job)).sendMessages({
      chatId: "chat",
      messages: [{ id: "question", role: "user", parts: [{ type: "text", text: job.text }] }],
      trigger: "submit-message",
      messageId: undefined,
      abortSignal: undefined,
    });
    const onError = (problem) => {
      error ??= problem;
    };
    for await (message of readUIMessageStream({ stream, onError }));
  } catch (problem) {
    error = problem;
  }
  return shown(message, error);
});
