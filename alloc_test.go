//go:build !race

package keywright_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// What is exact is asserted: allocations of the SDK alone, over a transport in
// memory, and of one item of a page. The race detector allocates too, so that
// this file is not for it.
func TestAllocations(t *testing.T) {
	ctx := context.Background()
	key := &canned{200, keywrighttest.Fixture("ricloud/key.json")}
	rc := cannedRicloud(t, key)
	check := func(name string, limit float64, f func()) {
		t.Helper()
		n := testing.AllocsPerRun(200, f)
		t.Logf("%s: %.1f allocations, limit %.1f", name, n, limit)
		assert.LessOrEqual(t, n, limit, name)
	}
	check("retrieve", 45, func() {
		_, err := rc.Key.Retrieve(ctx, 1)
		require.NoError(t, err)
	})
	old := &keywright.Key{ID: 1, Token: keywright.NewSecret("the-token-before")}
	check("rotate", 52, func() {
		k := *old
		require.NoError(t, rc.Key.Rotate(ctx, &k, keywright.KeyRotateParams{}))
	})
	const n = 1000
	page := &canned{200, keyPage(t, n)}
	lc := cannedRicloud(t, page)
	per := testing.AllocsPerRun(20, func() {
		p, err := lc.Key.List(ctx, keywright.KeyListParams{Limit: n})
		require.NoError(t, err)
		require.Len(t, p.Items, n)
	}) / n
	t.Logf("item of a page: %.2f allocations, limit 19.2", per)
	assert.LessOrEqual(t, per, 19.2)
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, err := range lc.Key.All(ctx, keywright.KeyListParams{Limit: n}) {
				require.NoError(b, err)
			}
		}
	})
	bytesPer := float64(result.AllocedBytesPerOp()) / n
	t.Logf("item of an iteration: %.0f bytes, limit 700; %d ns", bytesPer, result.NsPerOp()/n)
	assert.LessOrEqual(t, bytesPer, 700.0)
}
