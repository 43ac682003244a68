// Whole response bodies (a JSON file of [{name, body}], argument 2) through one version of the AI
// SDK (argument 1), by its default transport and reader. Prints what a user would have seen of each.

import { readFileSync } from "node:fs";

const [, , version, file] = process.argv;
const { DefaultChatTransport, readUIMessageStream } = await import(version);

async function read(body) {
  const seen = { text: "", error: null };
  const headers = { "content-type": "text/event-stream", "x-vercel-ai-ui-message-stream": "v1" };
  const transport = new DefaultChatTransport({
    api: "http://127.0.0.1/api/chat",
    fetch: async () => new Response(body, { headers }),
  });
  const onError = (error) => {
    seen.error ??= error.message;
  };
  try {
    const stream = await transport.sendMessages({
      chatId: "chat",
      messages: [{ id: "question", role: "user", parts: [{ type: "text", text: "Hello" }] }],
      trigger: "submit-message",
      messageId: undefined,
      abortSignal: undefined,
    });
    for await (const message of readUIMessageStream({ stream, onError })) {
      const parts = message.parts.filter((part) => part.type === "text");
      seen.text = parts.map((part) => part.text).join("");
    }
  } catch (error) {
    seen.error ??= error.message;
  }
  return seen;
}

const results = [];
for (const { name, body } of JSON.parse(readFileSync(file, "utf8"))) {
  results.push({ name, ...(await read(body)) });
}
console.log(JSON.stringify({ results }));
