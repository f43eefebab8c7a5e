//go:build unix

package keywright_test

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
)

func TestTokenFilesThatAreNone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	_, err := keywright.FileToken(path).Token(t.Context())
	require.ErrorContains(t, err, "not a regular file")
	_, err = keywright.FileToken(path + "-missing").Token(t.Context())
	require.ErrorContains(t, err, "file does not exist")
}
