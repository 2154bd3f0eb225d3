/** @type {import("next").NextConfig} */
export default {
  // The application's own policy holds for the console too.
  headers: () => [
    {
      source: "/admin/:path*",
      headers: [{ key: "content-security-policy", value: "default-src 'self'; object-src 'none'; base-uri 'none'" }],
    },
  ],
};
