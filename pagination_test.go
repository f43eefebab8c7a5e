package keywright_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// modes are the ways to ask for pages.
var modes = map[string][]keywright.CallOption{
	"plain":    nil,
	"prefetch": {keywright.WithPrefetch()},
}

func keyIDs(t *testing.T, rc *keywright.Ricloud, p keywright.KeyListParams, opts ...keywright.CallOption) []keywright.KeyID {
	t.Helper()
	var ids []keywright.KeyID
	for k, err := range rc.Key.All(t.Context(), p, opts...) {
		require.NoError(t, err)
		ids = append(ids, k.ID)
	}
	return ids
}

// descending is n, n-1, … 1.
func descending(n int) []keywright.KeyID {
	var out []keywright.KeyID
	for i := n; i > 0; i-- {
		out = append(out, keywright.KeyID(i))
	}
	return out
}

func TestKeyService_All(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 9, 10, 11, 25} {
		for variant, opts := range map[string][]keywrighttest.Option{
			"exclusive": nil, "inclusive": {keywrighttest.WithInclusiveCursor()}, "capped": {keywrighttest.WithMaxLimit(4)},
			"text ids": {keywrighttest.WithTextIDs()}, "capped inclusive": {keywrighttest.WithMaxLimit(3), keywrighttest.WithInclusiveCursor()},
		} {
			for mode, call := range modes {
				t.Run(fmt.Sprint(n, " ", variant, " ", mode), func(t *testing.T) {
					t.Parallel()
					fake := keywrighttest.StartRicloud(t, opts...)
					fake.AddKeys(n - 1)
					rc := ricloud(t, fake)
					for _, limit := range []int{0, 1, 5, 10, 1000} {
						assert.Equal(t, descending(n), keyIDs(t, rc, keywright.KeyListParams{Limit: limit}, call...), "limit %d", limit)
					}
				})
			}
		}
	}
}

func TestKeyService_All_Empty(t *testing.T) {
	t.Parallel()
	for mode, call := range modes {
		fake := keywrighttest.StartRicloud(t)
		rc := ricloud(t, fake)
		assert.Empty(t, keyIDs(t, rc, keywright.KeyListParams{State: keywright.KeyBlocked}, call...), mode)
		assert.Equal(t, 1, fake.Count("key.list"))
	}
}

func TestKeyService_All_IsLazyAndCanBeRangedAgain(t *testing.T) {
	t.Parallel()
	for mode, call := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			fake := keywrighttest.StartRicloud(t)
			fake.AddKeys(29)
			rc := ricloud(t, fake)
			seq := rc.Key.All(t.Context(), keywright.KeyListParams{Limit: 10}, call...)
			assert.Zero(t, fake.Count("key.list"), "nothing is sent before the first pull")
			for k := range seq {
				assert.Equal(t, keywright.KeyID(30), k.ID)
				break // P8: the consumer stops early
			}
			assert.LessOrEqual(t, fake.Count("key.list"), 2)
			for range 2 {
				n := 0
				for _, err := range seq {
					require.NoError(t, err)
					n++
				}
				assert.Equal(t, 30, n)
			}
		})
	}
}

// scripted answers lists from a script of pages by cursor.
func scripted(t *testing.T, count *atomic.Int64, pages func(after string) string) *keywright.Ricloud {
	return ricloudAt(t, "https://ricloud.example", "some-token-0123456789", keywright.WithHTTPClient(&http.Client{
		Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			count.Add(1)
			body := pages(r.URL.Query().Get("after_id"))
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: readCloser(body), Request: r}, nil
		}),
	}))
}

func listOf(more bool, ids ...int) string {
	var items []string
	for _, id := range ids {
		items = append(items, fmt.Sprintf(`{"id":%d,"token":"token-of-key-%d"}`, id, id))
	}
	return fmt.Sprintf(`{"resource":"list","data":[%s],"has_more":%v,"total_count":9,"url":"/keys"}`, strings.Join(items, ","), more)
}

func TestPagingCells(t *testing.T) {
	t.Parallel()
	ran := map[string]bool{}
	for _, cell := range readTSV(t, "testdata/fault-matrix.tsv") {
		if cell["operation"] == "paging" {
			ran[cell["cell"]] = false
		}
	}
	collect := func(rc *keywright.Ricloud, opts ...keywright.CallOption) (ids []keywright.KeyID, err error) {
		for k, err := range rc.Key.All(t.Context(), keywright.KeyListParams{Limit: 2}, opts...) {
			if err != nil {
				return ids, err
			}
			ids = append(ids, k.ID)
		}
		return ids, nil
	}
	cells := map[string]func(t *testing.T, opts []keywright.CallOption){
		"P1": func(t *testing.T, opts []keywright.CallOption) { // the page repeats the last item
			var n atomic.Int64
			rc := scripted(t, &n, func(after string) string {
				return map[string]string{"": listOf(true, 5, 4), "4": listOf(true, 4, 3, 2), "2": listOf(false, 2, 1)}[after]
			})
			ids, err := collect(rc, opts...)
			require.NoError(t, err)
			assert.Equal(t, descending(5), ids)
		},
		"P2": func(t *testing.T, opts []keywright.CallOption) { // has_more, and nothing there
			var n atomic.Int64
			rc := scripted(t, &n, func(after string) string {
				return map[string]string{"": listOf(true, 2, 1), "1": listOf(true)}[after]
			})
			ids, err := collect(rc, opts...)
			require.NoError(t, err)
			assert.Equal(t, descending(2), ids)
			assert.Equal(t, int64(2), n.Load())
		},
		"P3": func(t *testing.T, opts []keywright.CallOption) { // loops of one, two and three pages
			for _, pages := range []map[string]string{
				{"": listOf(true, 3), "3": listOf(true, 3)},
				{"": listOf(true, 3), "3": listOf(true, 2), "2": listOf(true, 3)},
				{"": listOf(true, 3), "3": listOf(true, 2), "2": listOf(true, 1), "1": listOf(true, 2)},
			} {
				var n atomic.Int64
				rc := scripted(t, &n, func(after string) string { return pages[after] })
				ids, err := collect(rc, opts...)
				require.ErrorIs(t, err, keywright.ErrPaginationLoop)
				seen := map[keywright.KeyID]bool{}
				for _, id := range ids {
					assert.False(t, seen[id], "each id once")
					seen[id] = true
				}
				assert.LessOrEqual(t, n.Load(), int64(len(pages)+2))
			}
		},
		"P4": func(t *testing.T, opts []keywright.CallOption) { // an item vanishes between pages
			fake := keywrighttest.StartRicloud(t)
			fake.AddKeys(9)
			rc := ricloud(t, fake)
			var ids []keywright.KeyID
			for k, err := range rc.Key.All(t.Context(), keywright.KeyListParams{Limit: 3}, opts...) {
				require.NoError(t, err)
				ids = append(ids, k.ID)
				fake.RemoveKey(8) // the cursor of the first page
			}
			assert.Subset(t, ids, []keywright.KeyID{10, 9, 7, 6, 5, 4, 3, 2, 1})
		},
		"P5": func(t *testing.T, opts []keywright.CallOption) { // a cap below what was asked for
			fake := keywrighttest.StartAceData(t, keywrighttest.WithMaxLimit(7))
			fake.AddCredentials(40)
			got, err := keywright.Collect(aceData(t, fake).Credential.All(t.Context(), keywright.CredentialListParams{Limit: 100}, opts...), 100)
			require.NoError(t, err)
			assert.Len(t, got, 40)
		},
		"P6": func(t *testing.T, opts []keywright.CallOption) { // a list that leads elsewhere
			for _, u := range []string{"https://evil.example/keys", "//evil.example/keys", "http://ricloud.example/keys", "https://ricloud.example:444/keys", "::"} {
				var n atomic.Int64
				rc := scripted(t, &n, func(string) string { return strings.Replace(listOf(true, 2, 1), `"/keys"`, `"`+u+`"`, 1) })
				_, err := collect(rc, opts...)
				require.ErrorAs(t, err, new(*keywright.DecodeError))
			}
		},
		"P7": func(t *testing.T, opts []keywright.CallOption) { // a page fails for good
			fake := keywrighttest.StartRicloud(t)
			fake.AddKeys(8)
			rc := ricloud(t, fake)
			var ids []keywright.KeyID
			var failure error
			yielded := 0
			for k, err := range rc.Key.All(t.Context(), keywright.KeyListParams{Limit: 3}, opts...) {
				yielded++
				if err != nil {
					failure = err
					continue // the iterator ends by itself
				}
				if ids = append(ids, k.ID); len(ids) == 3 {
					fake.Inject(keywrighttest.Fault{Op: "key.list", Status: 503, Times: 3})
				}
			}
			require.ErrorIs(t, failure, keywright.ErrServer)
			assert.Equal(t, len(ids)+1, yielded)
			fake.ClearFaults()
			ids = append(ids, keyIDs(t, rc, keywright.KeyListParams{Limit: 3, AfterID: ids[len(ids)-1]}, opts...)...)
			assert.Equal(t, descending(9), ids, "resumed")
		},
		"P8": func(t *testing.T, opts []keywright.CallOption) {
			fake := keywrighttest.StartRicloud(t)
			fake.AddKeys(20)
			got, err := keywright.Collect(ricloud(t, fake).Key.All(t.Context(), keywright.KeyListParams{Limit: 3}, opts...), 3)
			require.NoError(t, err)
			assert.Len(t, got, 3)
			assert.LessOrEqual(t, fake.Count("key.list"), 2)
		},
	}
	for name, run := range cells {
		_, listed := ran[name]
		require.True(t, listed, name)
		ran[name] = true
		for mode, opts := range modes {
			t.Run(name+" "+mode, func(t *testing.T) {
				t.Parallel()
				run(t, opts)
			})
		}
	}
	for name, done := range ran {
		assert.True(t, done, "cell %s did not run", name)
	}
}

func TestPage_Next(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartRicloud(t)
	fake.AddKeys(4)
	rc := ricloud(t, fake)
	page, err := rc.Key.List(t.Context(), keywright.KeyListParams{Limit: 2})
	require.NoError(t, err)
	var ids []keywright.KeyID
	for {
		assert.Equal(t, 5, page.TotalCount)
		for _, k := range page.Items {
			ids = append(ids, k.ID)
		}
		next, err := page.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		page = next
	}
	assert.Equal(t, descending(5), ids)
	assert.False(t, page.HasMore)
	_, err = (&keywright.Page[keywright.Key]{}).Next(t.Context())
	require.ErrorIs(t, err, io.EOF)

	var n atomic.Int64
	loop := scripted(t, &n, func(string) string { return listOf(true, 3) })
	page, err = loop.Key.List(t.Context(), keywright.KeyListParams{Limit: 1})
	require.NoError(t, err)
	page, err = page.Next(t.Context())
	if err == nil {
		_, err = page.Next(t.Context())
	}
	require.ErrorIs(t, err, keywright.ErrPaginationLoop)
	assert.LessOrEqual(t, n.Load(), int64(3))
	var none context.Context
	_, err = page.Next(none)
	require.Error(t, err)
}

func TestCredentialService_All(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 9, 10, 11, 57} {
		for variant, opts := range map[string][]keywrighttest.Option{
			"items": nil, "results": {keywrighttest.WithResults()}, "capped": {keywrighttest.WithMaxLimit(4)}, "masked": {keywrighttest.WithMaskedTokens()},
		} {
			for mode, call := range map[string][]keywright.CallOption{
				"plain": nil, "prefetch": {keywright.WithPrefetch()}, "parallel": {keywright.WithParallel(4)},
			} {
				t.Run(fmt.Sprint(n, " ", variant, " ", mode), func(t *testing.T) {
					t.Parallel()
					fake := keywrighttest.StartAceData(t, opts...)
					fake.AddCredentials(n)
					ad := aceData(t, fake)
					want, err := keywright.Collect(ad.Credential.All(t.Context(), keywright.CredentialListParams{}), 100)
					require.NoError(t, err)
					require.Len(t, want, n)
					for _, limit := range []int{1, 10, 100} {
						got, err := keywright.Collect(ad.Credential.All(t.Context(), keywright.CredentialListParams{Limit: limit}, call...), 100)
						require.NoError(t, err)
						require.Len(t, got, n)
						for i := range got {
							assert.Equal(t, want[i].ID, got[i].ID, "in order")
							assert.Equal(t, variant == "masked", got[i].Masked)
						}
					}
					assert.Equal(t, 1, fake.Count("platform_token.me"), "looked up once")
				})
			}
		}
	}
}

// A row that is removed while pages are under way moves its neighbours: no
// row is seen twice, and nothing breaks.
func TestCredentialService_All_RowsMove(t *testing.T) {
	t.Parallel()
	for mode, call := range map[string][]keywright.CallOption{"plain": nil, "prefetch": {keywright.WithPrefetch()}, "parallel": {keywright.WithParallel(3)}} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			fake := keywrighttest.StartAceData(t)
			fake.AddCredentials(40)
			seen := map[keywright.CredentialID]bool{}
			for c, err := range aceData(t, fake).Credential.All(t.Context(), keywright.CredentialListParams{Limit: 5, Ordering: keywright.NewestFirst}, call...) {
				require.NoError(t, err)
				assert.False(t, seen[c.ID])
				seen[c.ID] = true
				switch len(seen) {
				case 3:
					fake.AddCredentials(2) // rows 4 and 5 come again on the next page
				case 12:
					fake.RemoveCredential(string(c.ID))
				}
			}
			assert.GreaterOrEqual(t, len(seen), 38)
		})
	}
}

func TestCredentialService_List_OwnUser(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	fake := keywrighttest.StartAceData(t)
	fake.AddCredentials(3)
	fake.AddForeignCredential()
	ad := aceData(t, fake)
	list := func(p keywright.CredentialListParams, opts ...keywright.CallOption) (int, error) {
		page, err := ad.Credential.List(ctx, p, opts...)
		if err != nil {
			return 0, err
		}
		return page.TotalCount, nil
	}
	n, err := list(keywright.CredentialListParams{})
	require.NoError(t, err)
	assert.Equal(t, 3, n)
	_, err = list(keywright.CredentialListParams{}, keywright.WithAnyHolder())
	require.ErrorIs(t, err, keywright.ErrForbidden, "one foreign row fails the page")
	n, err = list(keywright.CredentialListParams{ApplicationIDs: []keywright.ApplicationID{keywright.ApplicationID(fake.ApplicationID())}})
	require.NoError(t, err)
	assert.Equal(t, 3, n)
	assert.Equal(t, 1, fake.Count("platform_token.me"))
	super := keywrighttest.StartAceData(t, keywrighttest.WithSuperuser())
	super.AddForeignCredential()
	page, err := aceData(t, super).Credential.List(ctx, keywright.CredentialListParams{}, keywright.WithAnyHolder())
	require.NoError(t, err)
	assert.Len(t, page.Items, 1)
	assert.Zero(t, super.Count("platform_token.me"))

	failing := keywrighttest.StartAceData(t)
	failing.Inject(keywrighttest.Fault{Op: "platform_token.me", Status: 403})
	ad = aceData(t, failing)
	_, err = list(keywright.CredentialListParams{})
	require.ErrorIs(t, err, keywright.ErrForbidden)
	assert.Zero(t, failing.Count("credential.list"), "fails closed")
	_, err = list(keywright.CredentialListParams{})
	require.NoError(t, err, "a failed look-up is not remembered")
}

func TestIterationEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for mode, call := range map[string][]keywright.CallOption{"plain": nil, "prefetch": {keywright.WithPrefetch()}, "parallel": {keywright.WithParallel(3)}} {
		synctest.Test(t, func(t *testing.T) {
			// A provider that takes a second for each page.
			rt := roundTripFunc(func(r *http.Request) (*http.Response, error) {
				select {
				case <-r.Context().Done():
					return nil, r.Context().Err()
				case <-time.After(time.Second):
				}
				offset := 0
				_, _ = fmt.Sscan(r.URL.Query().Get("offset"), &offset)
				var items []string
				for i := range 10 {
					items = append(items, fmt.Sprintf(`{"id":"c1d2e3f4-0000-4000-8000-%012d"}`, offset+i+1))
				}
				return &http.Response{StatusCode: 200, Body: readCloser(`{"count":1000,"items":[` + strings.Join(items, ",") + `]}`), Request: r}, nil
			})
			ad := aceDataAt(t, "https://acedata.example", "some-token-0123456789", keywright.WithHTTPClient(&http.Client{Transport: rt}))
			ctx, cancel := context.WithTimeout(t.Context(), 5500*time.Millisecond)
			defer cancel()
			n := 0
			var failure error
			for _, err := range ad.Credential.All(ctx, keywright.CredentialListParams{UserIDs: []string{"u"}, Limit: 10}, call...) {
				if err != nil {
					failure = err
					break
				}
				n++
			}
			require.ErrorIs(t, failure, context.DeadlineExceeded, mode)
			assert.GreaterOrEqual(t, n, 50, mode)
		})
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartRicloud(t)
	fake.AddKeys(4)
	rc := ricloud(t, fake)
	_, err := keywright.Collect(rc.Key.All(t.Context(), keywright.KeyListParams{}), 0)
	require.ErrorAs(t, err, new(*keywright.ParamError))
	got, err := keywright.Collect(rc.Key.All(t.Context(), keywright.KeyListParams{}), 2)
	require.NoError(t, err)
	assert.Len(t, got, 2)
	fake.Inject(keywrighttest.Fault{Op: "key.list", Status: 404})
	got, err = keywright.Collect(rc.Key.All(t.Context(), keywright.KeyListParams{}), 2)
	require.ErrorIs(t, err, keywright.ErrNotFound)
	assert.Empty(t, got)
}

func TestOtherLists(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	fake := keywrighttest.StartRicloud(t)
	rc := ricloud(t, fake)
	for range 3 {
		_, err := rc.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{URL: "https://hooks.example.com/"})
		require.NoError(t, err)
		_, err = rc.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{URL: "s3://bucket", Credentials: keywright.AWSCredentials{AccessKeyID: "AKIA0", SecretAccessKey: keywright.NewSecret("some-secret")}})
		require.NoError(t, err)
	}
	hooks, err := keywright.Collect(rc.WebhookConfig.All(ctx, keywright.WebhookConfigListParams{Limit: 2}), 10)
	require.NoError(t, err)
	assert.Len(t, hooks, 3)
	stores, err := keywright.Collect(rc.StorageConfig.All(ctx, keywright.StorageConfigListParams{Limit: 2}), 10)
	require.NoError(t, err)
	assert.Len(t, stores, 3)
	tasks, err := keywright.Collect(rc.Task.All(ctx, keywright.TaskListParams{Limit: 2}), 10)
	require.NoError(t, err)
	assert.Len(t, tasks, 6)
	for _, task := range tasks {
		_, err := rc.Task.Wait(ctx, task.ID)
		require.NoError(t, err)
	}
	events, err := keywright.Collect(rc.Event.All(ctx, keywright.EventListParams{Type: "task", Action: "succeeded", Limit: 2}), 10)
	require.NoError(t, err)
	assert.Len(t, events, 6)
	event, err := rc.Event.Retrieve(ctx, events[0].ID)
	require.NoError(t, err)
	assert.Equal(t, "task.succeeded", event.Slug())

	ace := keywrighttest.StartAceData(t)
	ad := aceData(t, ace)
	apps, err := keywright.Collect(ad.Application.All(ctx, keywright.ApplicationListParams{Limit: 1}), 10)
	require.NoError(t, err)
	assert.Len(t, apps, 2)
	tokens, err := keywright.Collect(ad.PlatformToken.All(ctx, keywright.PlatformTokenListParams{}), 10)
	require.NoError(t, err)
	assert.Len(t, tokens, 1)
	for _, seq := range []error{
		second(keywright.Collect(rc.Key.All(ctx, keywright.KeyListParams{AfterID: -1}), 1)),
		second(keywright.Collect(rc.StorageConfig.All(ctx, keywright.StorageConfigListParams{AfterID: -1}), 1)),
		second(keywright.Collect(rc.WebhookConfig.All(ctx, keywright.WebhookConfigListParams{BeforeID: -1}), 1)),
		second(keywright.Collect(rc.Task.All(ctx, keywright.TaskListParams{AfterID: "/"}), 1)),
		second(keywright.Collect(rc.Event.All(ctx, keywright.EventListParams{AfterID: "/"}), 1)),
		second(keywright.Collect(ad.Credential.All(ctx, keywright.CredentialListParams{Ordering: "x"}), 1)),
		second(keywright.Collect(ad.Application.All(ctx, keywright.ApplicationListParams{Ordering: "x"}), 1)),
		second(keywright.Collect(ad.PlatformToken.All(ctx, keywright.PlatformTokenListParams{Ordering: "x"}), 1)),
		second(keywright.Collect(ad.PlatformToken.All(ctx, keywright.PlatformTokenListParams{UserIDs: []string{""}}), 1)),
		second(keywright.Collect((&keywright.Ricloud{}).Key.All(ctx, keywright.KeyListParams{}), 1)),
	} {
		require.Error(t, seq)
		assert.Equal(t, keywright.NotSent.String(), keywright.OutcomeOf(seq).String())
	}
}

func second[T any](_ T, err error) error { return err }
