import adapter from '@sveltejs/adapter-static';

/** @type {import('@sveltejs/kit').Config} */
export default {
	compilerOptions: { runes: true },
	kit: {
		// One page for every path: the master answers with it wherever no file and no API path matches.
		adapter: adapter({ fallback: 'index.html', precompress: true, strict: true }),
		appDir: '_app',
		paths: { relative: false },
		output: { bundleStrategy: 'split' }
	}
};
