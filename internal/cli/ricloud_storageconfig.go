package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

var storageConfigColumns = []string{"id", "type", "url", "state", "signed_urls_enabled", "signed_urls_expiry", "date_created"}

func (a *app) storageConfigGroup() *cobra.Command {
	return group("storage-config", "Say where results are stored",
		a.storageConfigList(), a.storageConfigGet(), a.storageConfigCreate(), a.storageConfigUpdate(),
		a.storageConfigTest(), a.storageConfigDelete())
}

func (a *app) storageConfigList() *cobra.Command {
	var (
		p keywright.StorageConfigListParams
		l listFlags
	)
	c := &cobra.Command{Use: "list", Short: "List storage configs", Example: "keywright ricloud storage-config list --output json"}
	idVar(c.Flags(), &p.AfterID, "after", "begin behind the config with this `ID`")
	idVar(c.Flags(), &p.BeforeID, "before", "stop before the config with this `ID`")
	l.define(c, "1000")
	c.RunE = onRicloud(a, func(_ *cobra.Command, rc *keywright.Ricloud) error {
		p.Limit = l.pageSize
		return runList(a, &l, storageConfigColumns, rc.StorageConfig.All(a.ctx, p))
	})
	return c
}

func (a *app) storageConfigGet() *cobra.Command {
	return &cobra.Command{
		Use: "get ID", Short: "Show a storage config", Args: arguments("ID"),
		Example: "keywright ricloud storage-config get 3",
		RunE: ricloudWithID(a, func(_ *cobra.Command, rc *keywright.Ricloud, id keywright.StorageConfigID) error {
			return a.print(rc.StorageConfig.Retrieve(a.ctx, id))
		}),
	}
}

// storageFlags are what a create and an update of a storage config have in
// common.
type storageFlags struct {
	credentials string // path
	params      *params
	p           keywright.StorageConfigUpdateParams
}

// define defines the flags. Whether results get signed URLs can be null in a
// create only: there it means the provider's default.
func (s *storageFlags) define(c *cobra.Command, creates bool) {
	s.params = newParams(c)
	param(s.params, &s.p.URL, "location", "url", "store results in the bucket at `URL`: gs://bucket/path or s3://bucket/path", false, parseText)
	textVar(c.Flags(), &s.credentials, "credentials-file", "write to the bucket with the credentials in `FILE`: a Google service-account key as JSON, or the .csv of the AWS console")
	param(s.params, &s.p.SignedURLsEnabled, "signed-urls", "bool", "whether results get signed URLs: `true|false`", creates, parseBool)
	param(s.params, &s.p.SignedURLsExpiry, "signed-urls-expiry", "duration", "let signed URLs expire after `DURATION`, such as 1h", true, parseDuration)
	s.params.defineNull("send null for `FIELD`, which means the provider's default")
}

// read settles the parameters, and reads the credentials.
func (s *storageFlags) read() (err error) {
	if s.credentials != "" {
		s.p.Credentials, err = keywright.ReadCredentialsFile(s.credentials)
	}
	if err != nil {
		return err
	}
	return s.params.apply()
}

// storageFlag is the flag for a parameter whose own name is that of another
// flag.
var storageFlag = map[string]string{"url": "location", "signed_urls_enabled": "signed-urls", "signed_urls_expiry": "signed-urls-expiry"}

func (a *app) storageConfigCreate() *cobra.Command {
	var s storageFlags
	c := &cobra.Command{
		Use: "create --location URL --credentials-file FILE", Short: "Create a storage config",
		Long: `Create a storage config. ricloud begins to test it at once; results are stored
once it is valid. A key uses it after "keywright ricloud key update", all keys
without their own after "keywright ricloud organisation update".

The call is sent once. If its answer is lost, the config is looked up.`,
		Example: "keywright ricloud storage-config create --location gs://bucket/path --credentials-file ./service-account.json",
	}
	s.define(c, true)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := required(c, "location", "credentials-file"); err != nil {
			return err
		}
		if err := s.read(); err != nil {
			return err
		}
		rc, err := a.ricloud()
		if err != nil {
			return err
		}
		location, _ := s.p.URL.Get()
		before := existing(rc.StorageConfig.List(a.ctx, keywright.StorageConfigListParams{Limit: 1000}))
		config, err := change(a, "keywright ricloud storage-config list", func(ctx context.Context) (*keywright.StorageConfig, error) {
			return rc.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{
				URL: location, Credentials: s.p.Credentials,
				SignedURLsEnabled: s.p.SignedURLsEnabled, SignedURLsExpiry: s.p.SignedURLsExpiry,
			}, before)
		})
		return a.print(config, asFlag(err, storageFlag))
	}
	return c
}

func (a *app) storageConfigUpdate() *cobra.Command {
	var s storageFlags
	c := &cobra.Command{
		Use: "update ID", Short: "Change a storage config", Args: arguments("ID"),
		Long: `Change a storage config. Its state goes back to new, and ricloud tests it again.`,
		Example: "keywright ricloud storage-config update 3 --signed-urls true --signed-urls-expiry 1h\n" +
			"keywright ricloud storage-config update 3 --null signed-urls-expiry",
	}
	s.define(c, false)
	c.RunE = func(_ *cobra.Command, args []string) error {
		id, err := argID[keywright.StorageConfigID](args[0])
		if err != nil {
			return err
		}
		if err := s.read(); err != nil {
			return err
		}
		rc, err := a.ricloud()
		if err != nil {
			return err
		}
		config, err := change(a, fmt.Sprintf("keywright ricloud storage-config get %d", id), func(ctx context.Context) (*keywright.StorageConfig, error) {
			return rc.StorageConfig.UpdateWithID(ctx, id, s.p)
		})
		return a.print(config, asFlag(err, storageFlag))
	}
	return c
}

func (a *app) storageConfigTest() *cobra.Command {
	var t testFlags
	c := &cobra.Command{
		Use: "test ID", Short: "Test a storage config", Args: arguments("ID"),
		Long: `Start a task that tests a storage config, and print the task. The call is sent
once. A test that is known to have failed is a failure of the command.`,
		Example: "keywright ricloud storage-config test 3 --wait",
	}
	t.define(c)
	c.RunE = ricloudWithID(a, func(_ *cobra.Command, rc *keywright.Ricloud, id keywright.StorageConfigID) error {
		return runTest(a, &t, rc, func(ctx context.Context, opts ...keywright.CallOption) (*keywright.Task, error) {
			return rc.StorageConfig.TestWithID(ctx, id, opts...)
		})
	})
	return c
}

func (a *app) storageConfigDelete() *cobra.Command {
	c := &cobra.Command{
		Use: "delete ID", Short: "Delete a storage config", Args: arguments("ID"),
		Long: `Delete a storage config. It asks first; away from a terminal it needs --yes. If
the answer is lost, it is looked up, and the call repeated if it did nothing.`,
		Example: "keywright ricloud storage-config delete 3 --yes",
	}
	a.confirmFlag(c)
	c.RunE = ricloudWithID(a, func(c *cobra.Command, rc *keywright.Ricloud, id keywright.StorageConfigID) error {
		return runDelete(a, c, fmt.Sprintf("storage config %d", id), "Results of keys that use it have no place then.",
			fmt.Sprintf("keywright ricloud storage-config get %d", id),
			func(ctx context.Context) error { return rc.StorageConfig.DeleteWithID(ctx, id) })
	})
	return c
}
