export default function Page() {
  return <p>POST /orders begins one.</p>;
}
