// `useChat` of `@ai-sdk/react` 1.2 in a React tree without a screen.

import { createElement, useEffect } from "react";
import renderer from "react-test-renderer";
import { useChat } from "ai4-react";

const atRest = ({ status }) => status === "ready" || status === "error";

/** Says a text in a chat with these options; the chat as it stands once it has come to an `end`. */
export function chatted(options, text, end = atRest) {
  return new Promise((resolve, reject) => {
    let sent = false;
    let tree;
    function Page() {
      const chat = useChat(options);
      useEffect(() => {
        if (!sent) {
          sent = true;
          chat.append({ role: "user", content: text }).catch(reject);
        } else if (end(chat)) {
          setTimeout(() => {
            tree.unmount();
            resolve(chat);
          });
        }
      }, [chat.status]);
      return null;
    }
    tree = renderer.create(createElement(Page));
  });
}
