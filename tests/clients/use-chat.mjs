// `useChat` of `@ai-sdk/react` 1.2 in a React tree without a screen.

import { createElement, useEffect } from "react";
import renderer from "react-test-renderer";
import { useChat } from "ai4-react";
import { run, tokens } from "./jobs.mjs";

await run(
  (job, url) =>
    new Promise((resolve, reject) => {
      const seen = { usage: null };
      let sent = false;
      let tree;
      function Page() {
        const chat = useChat({
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
        });
        useEffect(() => {
          if (!sent) {
            sent = true;
            chat.append({ role: "user", content: job.text }).catch(reject);
          } else if (chat.status === "ready" || chat.status === "error") {
            setTimeout(() => {
              tree.unmount();
              resolve({ ...seen, ...shown(chat) });
            });
          }
        }, [chat.status]);
        return null;
      }
      tree = renderer.create(createElement(Page));
    }),
);

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
