// The published Helper client over `callChatApi` of AI SDK 4 (argument 1: a release of
// `@ai-sdk/ui-utils`), the way its React hook sends a message: session, conversation, its own
// fetch and body.

import { HelperClient } from "@helperai/client";
import { generateHelperAuth } from "@helperai/client/auth";
import { fetchOf, run, tokens } from "./jobs.mjs";

const { callChatApi, generateId } = await import(process.argv[2]);
const keepsParts = process.argv[2] === "@ai-sdk/ui-utils"; // the releases before 1.1.10 do not

async function handlerOf(job, url) {
  if (job.body !== undefined) {
    return { fetch: fetchOf(job), experimental_prepareRequestBody: () => ({}) };
  }
  const auth = generateHelperAuth({ email: job.email, hmacSecret: job.secret });
  const client = new HelperClient({ host: url, ...auth });
  const { conversationSlug } = await client.conversations.create({ subject: "Question" });
  const conversation = await client.conversations.get(conversationSlug);
  return client.chat.handler({ conversation });
}

await run(async (job, url) => {
  const handler = await handlerOf(job, url);
  const asked = { id: generateId(), role: "user", content: job.text, createdAt: new Date() };
  if (keepsParts) asked.parts = [{ type: "text", text: job.text }];
  const seen = { text: "", error: null, reasoning: "", calls: [], sources: [], usage: null };
  const show = (messages) => {
    seen.text = messages.map((message) => message.content).join("");
    seen.reasoning = messages.map((message) => message.reasoning ?? "").join("");
    seen.calls = messages
      .flatMap((message) => message.toolInvocations ?? [])
      .map((call) => [call.toolName, call.args]);
    seen.sources = messages
      .flatMap((message) => message.parts ?? [])
      .filter((part) => part.type === "source")
      .map((part) => [part.source.url, part.source.title]);
  };
  try {
    await callChatApi({
      api: "/ignored",
      body: handler.experimental_prepareRequestBody({ messages: [asked], id: "chat" }),
      fetch: handler.fetch,
      streamProtocol: "data",
      generateId,
      lastMessage: asked,
      restoreMessagesOnFailure() {},
      onUpdate(update) {
        // Releases before 1.1.10 hand over a list, with a message for each step.
        show(Array.isArray(update) ? update : [update.message]);
      },
      onFinish(_, { finishReason, usage }) {
        seen.reason = finishReason;
        seen.usage = tokens(usage);
      },
    });
  } catch (error) {
    seen.error = error.message;
  }
  return seen;
});
