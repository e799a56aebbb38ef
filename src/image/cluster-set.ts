/** A set of clusters of a file, by number: memory for what is in it, however large the file says to be. */

/** Clusters of a page. */
const PAGE = 1 << 10;

export class ClusterSet {
  readonly #pages = new Map<number, Uint8Array>();
  /** How many are in it. */
  size = 0;

  /** False where it was there already. */
  add(cluster: number): boolean {
    const number = Math.floor(cluster / PAGE);
    let page = this.#pages.get(number);
    if (page === undefined) {
      page = new Uint8Array(PAGE / 8);
      this.#pages.set(number, page);
    }
    const at = cluster - number * PAGE;
    const bit = 1 << (at & 7);
    if ((page[at >>> 3]! & bit) !== 0) return false;
    page[at >>> 3]! |= bit;
    this.size++;
    return true;
  }

  has(cluster: number): boolean {
    const page = this.#pages.get(Math.floor(cluster / PAGE));
    const at = cluster % PAGE;
    return page !== undefined && (page[at >>> 3]! & (1 << (at & 7))) !== 0;
  }

  delete(cluster: number): void {
    if (!this.has(cluster)) return;
    const at = cluster % PAGE;
    this.#pages.get(Math.floor(cluster / PAGE))![at >>> 3]! &= ~(1 << (at & 7));
    this.size--;
  }
}
