package main

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// output is what several goroutines print.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements [io.Writer].
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func TestRun(t *testing.T) {
	t.Parallel()
	var out output
	require.NoError(t, run(t.Context(), &out))
	text := out.b.String()
	t.Log(text)
	last := -1
	for _, line := range []string{
		"config 1 has passed its test and is in effect\n",
		"config 2, with a secret of its own, has replaced it; both secrets are accepted\n",
		"the old secret is retired\n",
		"closed: what was in effect before is again\n",
	} {
		at := strings.Index(text, line)
		assert.Greater(t, at, last, line)
		last = at
	}
	assert.Contains(t, text, "event webhook_config.test: config 1\n")
	assert.Contains(t, text, "event webhook_config.test: config 2\n")
	for i := range 10 {
		assert.Equal(t, 1, strings.Count(text, fmt.Sprintf("event session.expired: {\"id\":\"session-%d\"}\n", i)))
	}
}
