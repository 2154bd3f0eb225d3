export default {
  mode: "production",
  target: "node22",
  entry: "./server.ts",
  output: { filename: "server.cjs" },
  resolve: { extensions: [".ts", ".js"] },
  module: {
    rules: [{ test: /\.ts$/, use: { loader: "swc-loader", options: { jsc: { parser: { syntax: "typescript" } } } } }],
  },
  // pg asks for its native driver, which is not installed unless somebody wants it.
  externals: { "pg-native": "commonjs pg-native" },
};
