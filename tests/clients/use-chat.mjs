// `useChat` of `@ai-sdk/react` 1.2, told how Helper's route wants to be asked.

import { run, tokens } from "./jobs.mjs";
import { chatted } from "./react-chat.mjs";

await run(async (job, url) => {
  const seen = { usage: null };
  const options = {
    id: `${url} ${job.conversation}`,
    api: `${url}/api/chat`,
    headers: { authorization: `Bearer ${job.credential}` },
    experimental_prepareRequestBody: ({ messages, id }) => ({
      id,
      message: messages.at(-1),
      conversationSlug: job.conversation,
    }),
    onFinish(_, { finishReason, usage }) {
      seen.reason = finishReason;
      seen.usage = tokens(usage);
    },
  };
  const chat = await chatted(options, job.text);
  return { ...seen, ...shown(chat) };
});

function shown({ messages, error, status }) {
  const last = messages.at(-1);
  const message = last?.role === "assistant" ? last : undefined;
  return {
    state: status,
    text: message?.content ?? "",
    error: error?.message ?? null,
    reasoning: message?.reasoning ?? "",
    calls: (message?.toolInvocations ?? []).map((call) => [call.toolName, call.args]),
    sources: (message?.parts ?? [])
      .filter((part) => part.type === "source")
      .map((part) => [part.source.url, part.source.title]),
  };
}
