import { createRequire } from "node:module";

// Rules are installed beside the linter that runs, not beside this file.
const js = createRequire(process.argv[1])("@eslint/js");

const browser = [
  "HTMLDetailsElement", "HTMLInputElement", "HTMLTableCellElement", "HTMLTableElement", "ImageData", "Path2D",
  "addEventListener", "atob", "document",
];

export default [
  js.configs.recommended,
  {
    languageOptions: { sourceType: "script", globals: Object.fromEntries(browser.map((name) => [name, "readonly"])) },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      curly: ["error", "multi-line"],
      eqeqeq: "error",
      "no-implicit-globals": "off", // the scripts of a page are one script of its own
      "no-shadow": "error",
      "no-unused-expressions": "error",
      "no-var": "error",
      "prefer-const": "error",
      "no-eval": "error",
      "no-new": "off", // an explorer listens for as long as its page is open
      "no-restricted-properties": [
        "error",
        ...["innerHTML", "outerHTML", "insertAdjacentHTML"].map((property) => ({ property, message: "Set textContent: names come from files." })),
      ],
      "no-restricted-globals": ["error", "fetch", "XMLHttpRequest", "WebSocket", "localStorage", "sessionStorage"],
    },
  },
];
