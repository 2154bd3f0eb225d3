import { purchase } from "./actions";

export default function Page() {
  return (
    <form action={purchase}>
      <label>
        Amount <input name="amount" type="number" defaultValue={900} />
      </label>
      <button>Buy</button>
    </form>
  );
}
