// Every VM that a search matches, for doing one thing to all of them.
import { api, unwrap } from '$lib/api/client';
import type { Vm } from '$lib/api/types';

const PAGE = 1000;
/** More than this is no longer done from a browser window that may be closed. */
export const MOST_MATCHING = 10_000;

export type Matching = { vms: Vm[]; total: number };

/** Fetches them page by page; tells how many it has. */
export async function matching(query: string, told: (have: number, total: number) => void, signal: AbortSignal): Promise<Matching> {
	const vms: Vm[] = [];
	let cursor: string | undefined;
	for (;;) {
		const page = await unwrap(api.GET('/api/v1/vms', { params: { query: { q: query || undefined, sort: 'name', limit: PAGE, cursor } }, signal }));
		vms.push(...page.items);
		told(vms.length, page.counts.total);
		cursor = page.next_cursor ?? undefined;
		if (!cursor || vms.length >= MOST_MATCHING) return { vms: vms.slice(0, MOST_MATCHING), total: page.counts.total };
	}
}
