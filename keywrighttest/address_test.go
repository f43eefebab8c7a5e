package keywrighttest_test

import (
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/keywrighttest"
)

// starters start each of the fakes, and return its URL and how to close it.
var starters = map[string]func(...keywrighttest.Option) (url string, stop func(), err error){
	"ricloud": func(opts ...keywrighttest.Option) (string, func(), error) {
		f, err := keywrighttest.NewRicloud(opts...)
		if err != nil {
			return "", nil, err
		}
		return f.URL(), f.Close, nil
	},
	"acedata": func(opts ...keywrighttest.Option) (string, func(), error) {
		f, err := keywrighttest.NewAceData(opts...)
		if err != nil {
			return "", nil, err
		}
		return f.URL(), f.Close, nil
	},
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for name, start := range starters {
		for addr, want := range map[string]string{"127.0.0.1:0": "http://127.0.0.1:", "localhost:0": "http://127.0.0.1:"} {
			url, stop, err := start(keywrighttest.WithAddress(addr))
			require.NoError(t, err, name)
			assert.True(t, strings.HasPrefix(url, want), url)
			_, _, err = start(keywrighttest.WithAddress(strings.TrimPrefix(url, "http://")))
			require.ErrorAs(t, err, new(*net.OpError), "%s: %s is in use", name, url)
			status, _, _ := call(t, "GET", url+"/keys", "", "")
			assert.GreaterOrEqual(t, status, 400)
			stop()
		}
		for _, addr := range []string{
			"", "8080", ":8080", "127.0.0.1", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::1%lo]:0", "127.1:0",
			"127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:", "localhost", "localhost.example:0", "example.com:0",
		} {
			_, _, err := start(keywrighttest.WithAddress(addr))
			require.ErrorContains(t, err, "want one on loopback", "%s: %q", name, addr)
		}
	}
}

// The address of a fake that was closed is free for the next one.
func TestAddressIsFreedByClose(t *testing.T) {
	t.Parallel()
	for name, start := range starters {
		l, err := net.Listen("tcp", "127.0.0.2:0") // nobody else's, most likely
		if err != nil {
			t.Skip("no address of its own")
		}
		addr := l.Addr().String()
		require.NoError(t, l.Close())
		for range 2 {
			url, stop, err := start(keywrighttest.WithAddress(addr))
			require.NoError(t, err, name)
			assert.Equal(t, "http://"+addr, url)
			stop()
		}
	}
}

func TestAddressIPv6(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here")
	}
	require.NoError(t, l.Close())
	for name, start := range starters {
		url, stop, err := start(keywrighttest.WithAddress("[::1]:0"))
		require.NoError(t, err, name)
		assert.True(t, strings.HasPrefix(url, "http://[::1]:"), url)
		stop()
	}
}

// What the package's documentation says is there.
func TestStart(t *testing.T) {
	t.Parallel()
	rc := keywrighttest.StartRicloud(t)
	status, _, key := call(t, "GET", rc.URL()+"/key", "Token "+rc.Token(), "")
	assert.Equal(t, 200, status)
	assert.EqualValues(t, 1, key["id"])
	assert.Equal(t, "active", key["state"])
	_, _, org := call(t, "GET", rc.URL()+"/organisation", "Token "+rc.Token(), "")
	assert.Equal(t, "unconfigured", org["state"])

	ad, other := keywrighttest.StartAceData(t), keywrighttest.StartAceData(t)
	assert.Equal(t, ad.UserID(), other.UserID())
	assert.NotEqual(t, ad.Token(), other.Token())
	assert.NotEqual(t, ad.ApplicationID(), other.ApplicationID())
	for path, want := range map[string]int{"credentials": 0, "applications": 2, "platform-tokens": 1} {
		status, _, list := call(t, "GET", ad.URL()+"/api/v1/"+path+"/", "Bearer "+ad.Token(), "")
		assert.Equal(t, 200, status, path)
		assert.EqualValues(t, want, list["count"], path)
	}
}

func TestFirstToken(t *testing.T) {
	t.Parallel()
	rc := keywrighttest.StartRicloud(t, keywrighttest.WithFirstToken("first-of-ricloud"))
	assert.Equal(t, "first-of-ricloud", rc.Token())
	status, _, _ := call(t, "GET", rc.URL()+"/key", "Token first-of-ricloud", "")
	assert.Equal(t, 200, status)
	ad := keywrighttest.StartAceData(t, keywrighttest.WithFirstToken("platform-first"))
	assert.Equal(t, "platform-first", ad.Token())
	status, _, _ = call(t, "GET", ad.URL()+"/api/v1/platform-tokens/", "Bearer platform-first", "")
	assert.Equal(t, 200, status)
}
