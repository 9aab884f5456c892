//! One cloud as a project member sees it: typed calls over openstack_sdk.
