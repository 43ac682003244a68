// Tools that run in the client: the model calls them, the client posts what they gave, and the
// model goes on. With an argument (5, 6 or 7) that version's `Chat`, without one the published
// Helper client in AI SDK 4's `useChat`. Prints [step, what came, what should have].

import { HelperClient } from "@helperai/client";
import { generateHelperAuth } from "@helperai/client/auth";
import { run } from "./jobs.mjs";
import { chatted } from "./react-chat.mjs";
import { transportOf } from "./ui-shown.mjs";

const version = process.argv[2];
const GAVE = { forecast: { sky: "sunny", city: "Zürich" }, now: "noon" };

async function helperChat(job, url) {
  const auth = generateHelperAuth({ email: job.email, hmacSecret: job.secret });
  const client = new HelperClient({ host: url, ...auth });
  const conversation = await client.conversations.get(job.conversation);
  const tool = (name) => ({ description: name, parameters: {}, execute: () => GAVE[name] });
  const handler = client.chat.handler({
    conversation,
    tools: { forecast: tool("forecast"), now: tool("now") },
  });
  const answered = ({ status, messages }) =>
    status === "error" || (status === "ready" && messages.at(-1)?.parts.at(-1)?.type === "text");
  const id = `${url} ${job.conversation}`;
  return chatted({ id, ...handler }, job.text, answered);
}

async function uiChat(job, url) {
  const { Chat } = await import(`ai${version}-react`);
  const sdk = await import(`ai${version}`);
  const chat = new Chat({
    transport: transportOf(sdk.DefaultChatTransport, job, url),
    sendAutomaticallyWhen: sdk.lastAssistantMessageIsCompleteWithToolCalls,
    onToolCall({ toolCall: { toolName, toolCallId } }) {
      chat.addToolOutput({ tool: toolName, toolCallId, output: GAVE[toolName] });
    },
    onError() {},
  });
  await chat.sendMessage({ text: job.text });
  return chat;
}

await run(async (job, url) => {
  const { messages, status, error } = await (version ? uiChat : helperChat)(job, url);
  const said = messages.map(({ role, parts }) => [
    role,
    parts.filter((part) => part.type === "text").map((part) => part.text),
  ]);
  const wanted = [
    ["user", [job.text]],
    ["assistant", job.answers],
  ];
  return {
    steps: [
      ["no error", error?.message ?? null, null],
      ["the chat is ready", status, "ready"],
      ["the model goes on with what they gave", said, wanted],
    ],
  };
});
