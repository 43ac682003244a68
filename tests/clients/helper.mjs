// One message through the published Helper client, the way its React hook sends it: the session,
// the conversation, then `callChatApi` of AI SDK 4 with the client's own fetch and body.
// Prints one JSON object with what the user of that hook would have seen.

import { callChatApi, generateId } from "@ai-sdk/ui-utils";
import { HelperClient } from "@helperai/client";
import { generateHelperAuth } from "@helperai/client/auth";

const { GATEWAY_URL, HELPER_SECRET, HELPER_EMAIL } = process.env;
const seen = { text: "", id: null, reason: null, usage: null, error: null };

const auth = generateHelperAuth({ email: HELPER_EMAIL, hmacSecret: HELPER_SECRET });
const client = new HelperClient({ host: GATEWAY_URL, ...auth });
const { conversationSlug } = await client.conversations.create({ subject: "Question" });
// What the client would be told of a conversation that was made this moment.
const conversation = { slug: conversationSlug, messages: [], experimental_guideSessions: [] };

async function say(text) {
  const handler = client.chat.handler({ conversation });
  const message = {
    id: generateId(),
    role: "user",
    content: text,
    parts: [{ type: "text", text }],
    createdAt: new Date(),
  };
  const messages = [...handler.initialMessages, message];
  await callChatApi({
    api: "/ignored",
    body: handler.experimental_prepareRequestBody({ messages, id: "chat" }),
    fetch: handler.fetch,
    streamProtocol: "data",
    generateId,
    lastMessage: message,
    restoreMessagesOnFailure() {},
    onUpdate({ message }) {
      seen.text = message.content;
    },
    onFinish(message, { finishReason, usage }) {
      seen.id = message.annotations?.find((annotation) => annotation.id)?.id ?? null;
      seen.reason = finishReason;
      seen.usage = usage;
    },
  });
}

try {
  await say(process.argv[2]);
} catch (error) {
  seen.error = error.message;
}
console.log(JSON.stringify(seen));
