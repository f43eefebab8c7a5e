//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/keywright/keywright"
)

// floor is what a careful engineer writes by hand: net/http on one tuned
// transport, pooled buffers, encoding/json into plain structs. It has no retries,
// no limits, no outcomes and no secrets.
type floor struct {
	url    string
	client *http.Client
	pool   sync.Pool
}

type floorKey struct {
	ID            int64           `json:"id"`
	Organisation  int64           `json:"organisation"`
	Type          string          `json:"type"`
	Config        *floorKeyConfig `json:"config"`
	StorageConfig *int64          `json:"storage_config"`
	WebhookConfig *int64          `json:"webhook_config"`
	Token         string          `json:"token"`
	State         string          `json:"state"`
	DateCreated   time.Time       `json:"date_created"`
	DateExpires   *time.Time      `json:"date_expires"`
}

type floorKeyConfig struct {
	PublishSourceFiles bool `json:"publish_source_files"`
}

type floorPage struct {
	Data    []*floorKey `json:"data"`
	HasMore bool        `json:"has_more"`
}

func tuned(fresh bool) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, 128
	t.DisableKeepAlives = fresh
	return t
}

func newFloor(url string, fresh bool) *floor {
	return &floor{url: url, client: &http.Client{Transport: tuned(fresh)}}
}

func (f *floor) do(ctx context.Context, method, path string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var in io.Reader
	if body != nil {
		in = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, f.url+path, in)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Token bench-token-0123456789")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "floor/1")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	buf, ok := f.pool.Get().(*bytes.Buffer)
	if !ok {
		buf = new(bytes.Buffer)
	}
	defer f.pool.Put(buf)
	buf.Reset()
	if resp.ContentLength > 0 {
		buf.Grow(int(resp.ContentLength) + bytes.MinRead)
	}
	if _, err := buf.ReadFrom(resp.Body); err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return json.Unmarshal(buf.Bytes(), into)
}

func (f *floor) retrieve(ctx context.Context) error {
	return f.do(ctx, http.MethodGet, "/keys/1", nil, new(floorKey))
}

func (f *floor) rotate(ctx context.Context) error {
	return f.do(ctx, http.MethodPost, "/keys/1/rotate", []byte("{}"), new(floorKey))
}

func (f *floor) iterate(ctx context.Context, items int) error {
	after := items + 1
	for n := 0; n < items; {
		var p floorPage
		if err := f.do(ctx, http.MethodGet, "/keys?limit=1000&after_id="+strconv.Itoa(after), nil, &p); err != nil {
			return err
		}
		n += len(p.Data)
		after = int(p.Data[len(p.Data)-1].ID)
	}
	return nil
}

// sdk is keywright doing the same.
type sdk struct{ rc *keywright.Ricloud }

func newSDK(url string, opts ...keywright.Option) (*sdk, error) {
	rc, err := keywright.NewRicloud(append([]keywright.Option{
		keywright.WithoutEnvironment(), keywright.WithBaseURL(url), keywright.WithToken("bench-token-0123456789"),
	}, opts...)...)
	return &sdk{rc}, err
}

func (s *sdk) retrieve(ctx context.Context) error {
	_, err := s.rc.Key.Retrieve(ctx, 1)
	return err
}

func (s *sdk) rotate(ctx context.Context) error {
	_, err := s.rc.Key.RotateWithID(ctx, 1, keywright.KeyRotateParams{})
	return err
}

func (s *sdk) iterate(ctx context.Context, items int, opts ...keywright.CallOption) error {
	n := 0
	for _, err := range s.rc.Key.All(ctx, keywright.KeyListParams{Limit: 1000, AfterID: keywright.KeyID(items + 1)}, opts...) {
		if err != nil {
			return err
		}
		n++
	}
	if n != items {
		return fmt.Errorf("%d items, want %d", n, items)
	}
	return nil
}

// memory is a transport that answers from memory: what is left is the client.
type memory struct{ body []byte }

func (m *memory) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	return &http.Response{
		StatusCode: http.StatusOK, Request: r, ContentLength: int64(len(m.body)),
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(m.body)),
	}, nil
}
