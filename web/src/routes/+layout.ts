// A page of static files: nothing is rendered on a server, every path is the same index.html.
export const ssr = false;
export const prerender = false;
