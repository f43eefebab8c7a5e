//go:build unix

package main

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestStartsAtOnce measures commands that have nothing to do. What counts is
// the quickest of many runs: whatever else the machine does makes some slower,
// and none quicker.
func TestStartsAtOnce(t *testing.T) {
	const runs, limit = 20, 30 * time.Millisecond
	s := newSite(t)
	for _, line := range []string{"--help", "version", "ricloud key --help", "rotate schema"} {
		took := make([]time.Duration, runs)
		for i := range took {
			cmd := s.command(t.Context(), strings.Fields(line)...)
			start := time.Now()
			require.NoError(t, cmd.Run())
			took[i] = time.Since(start)
		}
		slices.Sort(took)
		t.Logf("%s: %v at best, median %v", line, took[0], took[runs/2])
		assert.Less(t, took[0], limit, line)
	}
}

// TestNoNetwork runs commands that have no business with the network: nothing
// is connected to, by a proxy or otherwise.
func TestNoNetwork(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Errorf("somebody connected from %v", c.RemoteAddr())
			_ = c.Close()
		}
	}()
	s := jobSite(t, "ricloud-paired", "")
	here := "http://" + l.Addr().String()
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		s.env = append(s.env, name+"="+here)
	}
	s.env = append(s.env, "NO_PROXY=", "RICLOUD_URL="+here, "PLATFORM_API_BASE_URL="+here, "ACEDATACLOUD_PLATFORM_TOKEN=some-token-0123456789")
	for _, line := range []string{
		"", "--help", "help rotate", "version", "version -o json", "completion bash", "completion fish", "man pages", "rotate status", "rotate schema",
		"config view", "__complete ricloud key get 1", "__complete rotate run b", "ricloud key get --help",
	} {
		s.must(t, 0, strings.Fields(line)...)
	}
	for _, line := range []string{
		"nonsense", "ricloud key nonsense", "ricloud key get", "ricloud key get x", "ricloud key create", "ricloud key rotate 1 --reveal",
		"ricloud key list --limit x", "acedata credential delete 1 --yes", "rotate run nosuch", "rotate run --file nosuch", "rotate rollback nosuch",
	} {
		s.must(t, 2, strings.Fields(line)...)
	}
	require.NoError(t, l.Close())
	<-accepted
}
