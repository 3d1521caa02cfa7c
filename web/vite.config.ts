import { sveltekit } from '@sveltejs/kit/vite';
import { defineConfig } from 'vitest/config';

// `npm run dev` sends API calls to a master that runs beside it.
const master = process.env.BATWA_URL ?? 'http://127.0.0.1:8000';

export default defineConfig({
	plugins: [sveltekit()],
	build: { target: 'es2022', assetsInlineLimit: 0 },
	server: {
		proxy: {
			'/api/v1': { target: master, ws: true },
			'/health': master
		}
	},
	test: { include: ['src/**/*.test.ts'] }
});
