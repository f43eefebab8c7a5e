//go:build unix && !race

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if ok, err := child(); ok {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestExact asserts what does not depend on the machine.
func TestExact(t *testing.T) {
	url, stop, err := startServer()
	require.NoError(t, err)
	defer stop()
	s, err := newSDK(url)
	require.NoError(t, err)
	retrieve := func() error { return s.retrieve(context.Background()) }

	n, b, err := allocations(2000, retrieve)
	require.NoError(t, err)
	f := newFloor(url, false)
	fn, fb, err := allocations(2000, func() error { return f.retrieve(context.Background()) })
	require.NoError(t, err)
	t.Logf("P1 retrieve over loopback: %.1f allocations, %.0f bytes; the floor: %.1f, %.0f", n, b, fn, fb)
	assert.LessOrEqual(t, n, 83.0)
	assert.LessOrEqual(t, b, 5.8*1024)

	conns, err := connectionsOf(url, 10000, 64, func(s *sdk) error { return s.retrieve(context.Background()) })
	require.NoError(t, err)
	t.Logf("P4 connections: %d", conns)
	assert.LessOrEqual(t, conns, 128)

	conns, err = connectionsOf(url, 8000, 32, failing)
	require.NoError(t, err)
	t.Logf("P12 connections: %d", conns)
	assert.LessOrEqual(t, conns, 96)

	root, err := filepath.Abs("..")
	require.NoError(t, err)
	built, err := build(t.TempDir(), root, false)
	require.NoError(t, err)
	assert.Equal(t, []string{
		"example.com/sdk", "github.com/hashicorp/go-cleanhttp", "github.com/hashicorp/go-retryablehttp", "github.com/keywright/keywright",
	}, built["sdk"].modules, "P13")
	assert.LessOrEqual(t, built["sdk"].size-built["floor"].size, int64(1e6), "P13")
}
