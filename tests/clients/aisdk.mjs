// One message through the AI SDK (argument 1: ai5 or ai6), over its default transport and reader.
// Prints one JSON object with what the user of `useChat` would have seen.

const [, , version, text] = process.argv;
const { DefaultChatTransport, readUIMessageStream } = await import(version);

const { GATEWAY_URL, HELPER_TOKEN, CONVERSATION } = process.env;
const seen = { text: "", states: [], metadata: null, error: null };

const transport = new DefaultChatTransport({
  api: `${GATEWAY_URL}/api/chat`,
  headers: { authorization: `Bearer ${HELPER_TOKEN}` },
  prepareSendMessagesRequest: ({ messages }) => ({
    body: { message: messages.at(-1), conversationSlug: CONVERSATION },
  }),
});

try {
  const stream = await transport.sendMessages({
    chatId: "chat",
    messages: [{ id: "question", role: "user", parts: [{ type: "text", text }] }],
    trigger: "submit-message",
    messageId: undefined,
    abortSignal: undefined,
  });
  const onError = (error) => {
    seen.error = error.message;
  };
  for await (const message of readUIMessageStream({ stream, onError })) {
    const parts = message.parts.filter((part) => part.type === "text");
    seen.text = parts.map((part) => part.text).join("");
    seen.states = parts.map((part) => part.state);
    seen.metadata = message.metadata ?? null;
  }
} catch (error) {
  seen.error = error.message;
}
console.log(JSON.stringify(seen));
