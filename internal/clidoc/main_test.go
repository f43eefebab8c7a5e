package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDocuments checks that the documents in the repository are what the
// program writes.
func TestDocuments(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil || runtime.GOOS == "windows" {
		t.Skip("the sessions are run by bash, on Unix")
	}
	files, err := documents(t.Context(), "../..")
	require.NoError(t, err)
	for name, content := range files {
		b, err := os.ReadFile(filepath.Join("../..", name))
		require.NoError(t, err)
		assert.Equal(t, string(content), string(b), name+": run go run ./internal/clidoc")
	}
}
