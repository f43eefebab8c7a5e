package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out, t.TempDir(), 20), out.String())
	assert.Contains(t, out.String(), "interrupted; run again")
	assert.Contains(t, out.String(), "20 credentials made, 20 deleted", "each was rotated once")
}
