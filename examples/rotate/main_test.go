package main

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary be the rotating process.
func TestMain(m *testing.M) {
	if dir, url := os.Getenv(envDir), os.Getenv(envURL); dir != "" && url != "" {
		exit(child(context.Background(), dir, url))
	}
	os.Exit(m.Run())
}

func TestDemonstrate(t *testing.T) {
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	var out bytes.Buffer
	dir := t.TempDir()
	require.NoError(t, demonstrate(t.Context(), &out, dir, 1, 4), out.String())
	said := out.String()
	t.Log(said)
	for _, want := range []string{
		"POINT OF NO RETURN", "PLANNED", "RETIRING", "old token: accepted", "new token: accepted", "old token: refused",
		" has the new token", "4 rotations", "; 0 failed.", "and, sealed, in",
	} {
		assert.Contains(t, said, want)
	}
	assert.Regexp(t, `[1-9]\d* kills`, said)
	token, err := os.ReadFile(tokenFile(dir))
	require.NoError(t, err)
	assert.NotContains(t, said, string(bytes.TrimSpace(token)))
}
