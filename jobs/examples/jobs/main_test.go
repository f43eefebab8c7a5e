package main

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestPlay(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	var out bytes.Buffer
	require.NoError(t, play(ctx, &out, dir, false), out.String())
	assert.Contains(t, out.String(), "killed; the next worker goes on with it")
	assert.Regexp(t, `(billing|gateway|search) was finished [0-9.]+m?s after the new worker was started`, out.String())
	assert.Contains(t, out.String(), "the page shows all of them")
	assert.Contains(t, out.String(), "every file holds a token that the provider takes")
	for _, name := range []string{"platform", "billing", "gateway", "search"} {
		token, err := os.ReadFile(settings{Dir: dir}.token(name))
		require.NoError(t, err)
		assert.NotContains(t, out.String(), string(bytes.TrimSpace(token)))
	}
}
