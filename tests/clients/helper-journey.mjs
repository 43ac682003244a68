// A visitor's whole way with the published Helper client: session, conversations, messages, and
// what the client's own schemas say of every answer. Prints [step, what came, what should have].

import { HelperClient, conversationDetailsSchema, conversationSchema } from "@helperai/client";
import { generateHelperAuth } from "@helperai/client/auth";
import { callChatApi, generateId } from "@ai-sdk/ui-utils";
import { run } from "./jobs.mjs";

await run(async (job, url) => {
  const steps = [];
  const step = (name, came, wanted) => steps.push([name, came, wanted]);
  const visitor = (email) =>
    new HelperClient({ host: url, ...generateHelperAuth({ email, hmacSecret: job.secret }) });
  const email = `${job.conversation}@example.com`;
  const client = visitor(email);

  step("session", (await client.getToken()).split(".").length, 3);
  step("a new visitor has nothing", await client.conversations.unread(), { count: 0 });
  step("… and no list", (await client.conversations.list()).conversations, []);
  const { conversationSlug: slug } = await client.conversations.create({ subject: "Größe 📦" });
  await client.conversations.create({});
  const listed = async () =>
    (await client.conversations.list()).conversations.map((one) => conversationSchema.parse(one));
  const counts = (one) => [one?.subject, one?.messageCount, one?.isUnread];
  const own = async () => (await listed()).find((one) => one.slug === slug);
  step("conversations.list", (await listed()).length, 2);
  step("… a new one", counts(await own()), ["Größe 📦", 0, false]);
  const got = async (how) =>
    conversationDetailsSchema.parse(await client.conversations.get(slug, how));
  step("conversations.get", (await got()).messages, []);

  const first = await say(client, await got(), job.text);
  step("chat.handler", first.content, job.answer);
  step("conversations.unread", await client.conversations.unread(), { count: 1 });
  step("… in the list", counts(await own()), ["Größe 📦", 2, true]);
  const seen = await got({ markRead: false });
  const said = (message) => [message.role, message.content];
  const exchange = [
    ["user", job.text],
    ["assistant", job.answer],
  ];
  step("… and its messages", seen.messages.map(said), exchange);
  const shown = client.chat.message(first);
  step("chat.message has the id that is stored", shown.id, seen.messages[1].id);
  step("… and the words", [shown.role, shown.content], exchange[1]);
  step("markRead: false marks nothing", await client.conversations.unread(), { count: 1 });
  step("conversations.update", await client.conversations.update(slug, { markRead: true }), {
    success: true,
  });
  step("… has marked it", await client.conversations.unread(), { count: 0 });

  const again = await got();
  const handler = client.chat.handler({ conversation: again });
  step("chat.messages", client.chat.messages(handler.initialMessages), again.messages);
  await say(client, again, job.text);
  step("a second turn", (await got()).messages.map(said), [...exchange, ...exchange]);
  step("conversations.get marks it read", await client.conversations.unread(), { count: 0 });

  const refused = (call) => call.then(() => "nothing", (error) => error.message);
  const none = await refused(client.conversations.get("nobody"));
  step("a slug of nobody", none, "Conversation not found");
  const stranger = visitor(`not-${email}`);
  step("a stranger's slug", await refused(stranger.conversations.get(slug)), "Unauthorized");
  const marked = await refused(stranger.conversations.update(slug, { markRead: true }));
  step("… cannot be marked", marked, "Unauthorized");
  return { steps };
});

async function say(client, conversation, text) {
  const handler = client.chat.handler({ conversation });
  const asked = {
    id: generateId(),
    role: "user",
    content: text,
    createdAt: new Date(),
    parts: [{ type: "text", text }],
  };
  let finished;
  await callChatApi({
    api: "/ignored",
    body: handler.experimental_prepareRequestBody({
      messages: [...handler.initialMessages, asked],
      id: "chat",
    }),
    fetch: handler.fetch,
    streamProtocol: "data",
    generateId,
    lastMessage: asked,
    restoreMessagesOnFailure() {},
    onUpdate() {},
    onFinish(message) {
      finished = message;
    },
  });
  return finished;
}
