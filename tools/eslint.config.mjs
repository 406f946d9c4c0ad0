// The page's scripts share one scope, so `make lint` checks them as one text: see tools/lint_page.py.
const browser = [
  "$", "Blob", "ImageData", "MutationObserver", "URL", "Worker", "atob", "cancelAnimationFrame", "clearInterval", "document",
  "innerHeight", "innerWidth", "matchMedia", "performance", "postMessage", "requestAnimationFrame", "setInterval", "setTimeout",
];

export default [{
  languageOptions: {
    ecmaVersion: 2022,
    sourceType: "script",
    globals: Object.fromEntries(browser.map((name) => [name, "readonly"])),
  },
  rules: {
    "array-callback-return": "error",
    "eqeqeq": "error",
    "no-const-assign": "error",
    "no-dupe-args": "error",
    "no-dupe-else-if": "error",
    "no-dupe-keys": "error",
    "no-fallthrough": "error",
    "no-invalid-regexp": "error",
    "no-redeclare": ["error", { builtinGlobals: false }],
    "no-self-assign": "error",
    "no-self-compare": "error",
    "no-sparse-arrays": "error",
    "no-undef": "error",
    "no-unreachable": "error",
    "no-unused-expressions": "error",
    "no-unused-vars": "error",
    "no-var": "error",
    "prefer-const": ["error", { destructuring: "all" }],
    "use-isnan": "error",
    "valid-typeof": "error",
  },
}];
