// What the list of VMs knows that the search box needs: what is wrong with the search, and how many there are of what.
import type { VmCounts } from '$lib/api/types';
import type { SearchError } from '$lib/model/query';

class VmSearch {
	/** What the master found wrong, with the text that it read. */
	wrong = $state.raw<{ query: string; error: SearchError } | null>(null);
	counts = $state.raw<VmCounts | null>(null);
}

export const vmSearch = new VmSearch();
