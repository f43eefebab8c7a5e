package keywright_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// canned is a transport that answers every request with one body, from memory.
type canned struct {
	status int
	body   []byte
}

func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	return &http.Response{
		StatusCode: c.status, ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: int64(len(c.body)),
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(c.body)),
	}, nil
}

func cannedRicloud(t testing.TB, c *canned) *keywright.Ricloud {
	return ricloudAt(t, "https://ricloud.example", "some-token-0123456789", keywright.WithHTTPClient(&http.Client{Transport: c}))
}

// keyPage is a page of n keys as ricloud sends it.
func keyPage(t testing.TB, n int) []byte {
	t.Helper()
	var key map[string]any
	require.NoError(t, json.Unmarshal(keywrighttest.Fixture("ricloud/key.json"), &key))
	items := make([]map[string]any, n)
	for i := range items {
		item := map[string]any{}
		for k, v := range key {
			item[k] = v
		}
		item["id"] = n - i
		item["token"] = "fake-token-key-" + strconv.Itoa(1000000+i) + "-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		items[i] = item
	}
	b, err := json.Marshal(map[string]any{"resource": "list", "data": items, "has_more": false, "total_count": n, "url": "/keys"})
	require.NoError(t, err)
	return b
}

// What is exact is asserted: allocations of the SDK alone, over a transport in
// memory, and of one item of a page.
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
