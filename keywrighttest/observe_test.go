package keywrighttest_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/keywrighttest"
)

func TestObserver(t *testing.T) {
	t.Parallel()
	type seen struct {
		op     string
		auth   bool
		status int
	}
	all := make(chan seen, 3)
	f := keywrighttest.StartRicloud(t, keywrighttest.WithObserver(func(r keywrighttest.Request, status int) {
		assert.Empty(t, r.Header["Authorization"])
		all <- seen{r.Op, r.Auth, status}
	}))
	get := func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL()+"/keys/1", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Token "+f.Token())
		req.Close = true // a connection that was used before would be tried again
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err == nil {
			err = resp.Body.Close()
		}
		return err
	}
	require.NoError(t, get())
	assert.Equal(t, seen{"key.retrieve", true, http.StatusOK}, <-all)
	f.Inject(
		keywrighttest.Fault{Do: keywrighttest.Drop},
		keywrighttest.Fault{Do: keywrighttest.Reset, When: keywrighttest.AfterApply})
	require.Error(t, get())
	assert.Equal(t, seen{"key.retrieve", false, 0}, <-all)
	require.Error(t, get())
	assert.Equal(t, seen{"key.retrieve", true, 0}, <-all)
}
