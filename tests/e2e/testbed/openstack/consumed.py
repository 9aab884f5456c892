#!/usr/bin/python3
"""Waits until a service takes messages from its queue: consumed.py RABBITMQ-ADDRESS VHOST PASSWORD QUEUE SECONDS
(what an agent asks before that is lost, and costs it a minute)"""
import sys, time
import amqp
address, vhost, password, queue, limit = sys.argv[1:]
end = time.time() + float(limit)
while time.time() < end:
    try:
        with amqp.Connection(host=address, virtual_host=vhost, userid='ostack', password=password) as c:
            if c.channel().queue_declare(queue, passive=True).consumer_count: sys.exit(0)
    except (OSError, amqp.AMQPError): pass
    time.sleep(0.2)
sys.exit('nobody takes messages from %s of %s' % (queue, vhost))
