"""Where the data set comes from: one module a source, each with a function `fetch`."""
