// What AI SDK 5 and later are given, and what they then have to show.

import { tokens } from "./jobs.mjs";

/** The default transport, told how Helper's route wants to be asked. */
export function transportOf(DefaultChatTransport, job, url, fetch) {
  return new DefaultChatTransport({
    fetch,
    api: `${url}/api/chat`,
    headers: { authorization: `Bearer ${job.credential}` },
    prepareSendMessagesRequest: ({ messages }) => ({
      body: { message: messages.at(-1), conversationSlug: job.conversation },
    }),
  });
}

/** A `UIMessage` as it stands on a screen. */
export function shown(message, error) {
  const parts = message?.parts ?? [];
  const of = (type) => parts.filter((part) => part.type === type);
  const joined = (type) => of(type).map((part) => part.text).join("");
  return {
    text: joined("text"),
    error: error?.message ?? null,
    reasoning: joined("reasoning"),
    calls: parts
      .filter((part) => part.type.startsWith("tool-"))
      .map((part) => [part.type.slice("tool-".length), part.input]),
    sources: of("source-url").map((part) => [part.url, part.title]),
    usage: tokens(message?.metadata?.usage),
    reason: message?.metadata?.finishReason,
    open: parts.filter((part) => part.state === "streaming").length,
  };
}
